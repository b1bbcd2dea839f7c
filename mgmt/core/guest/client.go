package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

// maxPending bounds the calls that a VMM leaves without an answer: then it has
// to be connected to anew.
const maxPending = 256

// A client talks to one VMM. It connects when it is needed, and again when the
// connection has ended. A VMM may be in the guest's hands: one that answers what
// nobody has asked loses its connection, and cannot keep core busy.
type client struct {
	path string

	mu      sync.Mutex
	conn    *seqpacket.Conn
	next    uint64
	pending map[uint64]chan<- answer // nil for a call that nobody waits for any more
}

type answer struct {
	response protocol.Response
	files    []*os.File
	err      error
}

func newClient(path string) *client {
	return &client{path: path, pending: make(map[uint64]chan<- answer)}
}

// call is do for a request that has a Spec at most.
func (c *client) call(ctx context.Context, method protocol.Method, spec *protocol.Spec, files []*os.File) (protocol.Response, []*os.File, error) {
	return c.do(ctx, protocol.Request{Method: method, Spec: spec}, files)
}

// do makes one request, with files beside it, and waits for its answer. What
// an answer brings is the caller's; only those to Console and ConnectPort bring anything.
func (c *client) do(ctx context.Context, request protocol.Request, files []*os.File) (protocol.Response, []*os.File, error) {
	method := request.Method
	got := make(chan answer, 1)
	conn, id, err := c.register(got)
	if err != nil {
		return protocol.Response{}, nil, fmt.Errorf("%s: connect to VMM: %w", method, err)
	}
	// A VMM that does not read would keep Send waiting: end the connection then.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	request.ID = id
	err = conn.Send(request, files...)
	stop()
	if err != nil {
		c.forget(id)
		return protocol.Response{}, nil, fmt.Errorf("%s: %w", method, err)
	}
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		if c.forget(id) {
			return protocol.Response{}, nil, fmt.Errorf("%s: no answer from VMM: %w", method, ctx.Err())
		}
		a = <-got // it came in this moment
	}
	switch {
	case a.err != nil:
		return protocol.Response{}, nil, fmt.Errorf("%s: %w", method, a.err)
	case a.response.Error != nil:
		seqpacket.CloseAll(a.files)
		return protocol.Response{}, nil, a.response.Error
	}
	if method != protocol.Console && method != protocol.ConnectPort {
		seqpacket.CloseAll(a.files)
		a.files = nil
	}
	return a.response, a.files, nil
}

// register connects where necessary and notes that an answer goes to got.
func (c *client) register(got chan<- answer) (*seqpacket.Conn, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) >= maxPending {
		_ = c.conn.Close()
		return nil, 0, fmt.Errorf("%d calls are without an answer", len(c.pending))
	}
	if c.conn == nil {
		conn, err := seqpacket.Dial(c.path)
		if err != nil {
			return nil, 0, err
		}
		c.conn = conn
		go c.receive(conn)
	}
	c.next++
	c.pending[c.next] = got
	return c.conn, c.next, nil
}

// forget reports whether the answer to id had not come yet.
func (c *client) forget(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pending[id]
	if ok {
		c.pending[id] = nil // the answer may still come
	}
	return ok
}

// receive hands out the answers on conn until it ends.
func (c *client) receive(conn *seqpacket.Conn) {
	for {
		var r protocol.Response
		files, err := conn.Recv(&r)
		if err == nil {
			err = c.deliver(answer{response: r, files: files})
		}
		if err != nil {
			_ = conn.Close()
			c.lost(conn, err)
			return
		}
	}
}

// deliver gives an answer to who waits for it.
func (c *client) deliver(a answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.pending[a.response.ID]
	delete(c.pending, a.response.ID)
	if got != nil {
		got <- a // has room for it
		return nil
	}
	seqpacket.CloseAll(a.files)
	if !ok {
		return errors.New("an answer to what was not asked")
	}
	return nil
}

// lost ends all calls on conn.
func (c *client) lost(conn *seqpacket.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
	for id, got := range c.pending {
		delete(c.pending, id)
		if got != nil {
			got <- answer{err: fmt.Errorf("connection to VMM: %w", err)}
		}
	}
}

// close ends the connection.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// console asks for the console's stream.
func (c *client) console(ctx context.Context) (*os.File, error) {
	return c.stream(ctx, protocol.Request{Method: protocol.Console})
}

// stream makes a request whose answer brings a stream.
func (c *client) stream(ctx context.Context, request protocol.Request) (*os.File, error) {
	_, files, err := c.do(ctx, request, nil)
	if err != nil {
		return nil, err
	}
	if len(files) != 1 || !isStream(files[0]) {
		seqpacket.CloseAll(files)
		return nil, fmt.Errorf("%s: the VMM's answer brings no stream socket", request.Method)
	}
	return files[0], nil
}

// isStream reports whether f is a Unix stream socket: what a VMM hands on to
// control must be nothing else.
func isStream(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	stream := false
	err = conn.Control(func(fd uintptr) {
		domain, err1 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		kind, err2 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		stream = err1 == nil && err2 == nil && domain == unix.AF_UNIX && kind == unix.SOCK_STREAM
	})
	return err == nil && stream
}
