package server

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// maxQueue is how many messages may wait for a connection's reader. A burst of
// events for all guests fits in.
const maxQueue = 1024

// A conn is one connection from control.
type conn struct {
	s          *Server
	peer       *seqpacket.Conn
	subscribed atomic.Bool
	calls      chan struct{} // holds one per call under way
	queue      chan outgoing
	once       sync.Once
	closed     chan struct{}
}

// outgoing is a message with its descriptors, which are closed once it is sent.
type outgoing struct {
	message hostcall.Message
	files   []*os.File
}

func newConn(peer *seqpacket.Conn, s *Server) *conn {
	return &conn{s: s, peer: peer, calls: make(chan struct{}, maxCalls),
		queue: make(chan outgoing, maxQueue), closed: make(chan struct{})}
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.closed)
		_ = c.peer.Close()
	})
}

// serve answers until the connection or ctx ends.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, c.close)
	var all sync.WaitGroup
	all.Go(c.write)
	c.read(ctx, &all)
	c.s.forget(c)
	c.close()
	cancel()
	stop()
	all.Wait()
	for { // nobody will send these any more
		select {
		case o := <-c.queue:
			seqpacket.CloseAll(o.files)
		default:
			return
		}
	}
}

// read takes calls and lets each be answered by a goroutine in all.
func (c *conn) read(ctx context.Context, all *sync.WaitGroup) {
	for {
		select {
		case c.calls <- struct{}{}:
		case <-c.closed:
			return
		}
		var call hostcall.Call
		files, err := c.peer.Recv(&call)
		if err == nil && (len(files) > 0 || call.Seq == 0) {
			seqpacket.CloseAll(files)
			err = errors.New("a call has a number, and brings no descriptors")
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				c.s.Log.Warn("connection broke the rules and is closed", "error", err)
			}
			return
		}
		all.Go(func() {
			defer func() { <-c.calls }()
			message, files := c.s.answer(ctx, c, &call)
			message.Seq = call.Seq
			c.send(message, files...)
		})
	}
}

// send queues a message, and takes files over. It does not wait: a connection
// that does not read is closed.
func (c *conn) send(m hostcall.Message, files ...*os.File) {
	select {
	case c.queue <- outgoing{m, files}:
	case <-c.closed:
		seqpacket.CloseAll(files)
	default:
		seqpacket.CloseAll(files)
		c.s.Log.Error("connection does not read and is closed", "waiting", maxQueue)
		c.close()
	}
}

// write sends what is queued.
func (c *conn) write() {
	for {
		select {
		case <-c.closed:
			return
		case o := <-c.queue:
			err := c.peer.Send(o.message, o.files...)
			seqpacket.CloseAll(o.files)
			if errors.Is(err, seqpacket.ErrTooLarge) {
				err = c.peer.Send(hostcall.Message{Seq: o.message.Seq, Error: &hostcall.Error{
					Code: hostcall.Internal, Message: "The answer does not fit into a message."}})
			}
			if err != nil {
				c.close()
				return
			}
		}
	}
}
