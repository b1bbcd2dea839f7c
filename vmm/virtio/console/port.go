package console

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	// MaxPorts is the most named ports of a device.
	MaxPorts = 7
	// maxName bounds the name of a port in bytes: Linux gives a page for the message.
	maxName = 256
	// inputSize is how much is read from a client at once.
	inputSize = 4096
	// look is how often a client is looked after whose input the guest does not take: it
	// may have left, which no reading would tell.
	look = 500 * time.Millisecond
)

var (
	// ErrNoPort says that there is no port of that name.
	ErrNoPort = errors.New("no such port")
	// ErrNotOpen says that no program in the guest has the port open.
	ErrNotOpen = errors.New("not open in the guest")
	// ErrBusy says that the port has a client already.
	ErrBusy = errors.New("has a client already")
)

// A port is one that has a name.
type port struct {
	d      *Device
	id     uint32
	name   string
	rx, tx *worker.Worker

	// Guarded by Device.mu.
	news    news
	open    bool          // a program in the guest has it open
	client  *client       // nil where there is none
	changed chan struct{} // closed, and made anew, when open or client are others

	rest   input  // taken from a client, and not yet by the guest; the receiver's
	sent   uint64 // of the first chain in the transmit queue, to sentTo; the transmitter's
	sentTo *client
	whole  bool // the guest has closed the port, and its queue is looked at once more; the transmitter's

	metrics portMetrics
}

// A client is a connection of a port.
type client struct {
	f     *os.File
	input chan []byte
	taken chan struct{} // has room for one sign that the guest has all of an input
	gone  chan struct{} // closed when it has ended
	// closing says that the guest has closed the port: the client gets what is in the
	// queue, and then the end.
	closing atomic.Bool
}

// An input is what a client has sent.
type input struct {
	from *client
	b    []byte
}

func checkPorts(names []string) error {
	if len(names) > MaxPorts {
		return fmt.Errorf("%d named ports, at most %d: %w", len(names), MaxPorts, ErrConfig)
	}
	for i, n := range names {
		if n == "" || len(n) > maxName || slices.Contains(names[:i], n) {
			return fmt.Errorf("port name %q, of 1 to %d bytes and no other port's: %w", n, maxName, ErrConfig)
		}
	}
	return nil
}

// addPorts makes the named ports, and what they need.
func (d *Device) addPorts() error {
	if len(d.c.Ports) == 0 {
		return nil
	}
	d.tell = make(chan struct{}, 1)
	for i, name := range d.c.Ports {
		d.ports = append(d.ports, &port{d: d, id: uint32(i + 1), name: name, changed: make(chan struct{})})
	}
	kicks := []**worker.Worker{&d.controlRx, &d.controlTx}
	for _, p := range d.ports {
		kicks = append(kicks, &p.rx, &p.tx)
	}
	for i, w := range kicks {
		var err error
		if *w, err = worker.New(fmt.Sprintf("console-kick-%d", transmitQueue+1+i)); err != nil {
			return err
		}
	}
	return nil
}

// Connect makes a client of the port called name, and returns its end of a stream socket:
// what the guest writes comes out of it, what is written to it the guest reads. It ends
// when the guest closes the port or resets the device. The guest is told when the client
// closes it. There is one client at a time (ErrBusy), and none of a port that the guest has
// not open (ErrNotOpen).
func (d *Device) Connect(name string) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.ports, func(p *port) bool { return p.name == name })
	if i < 0 {
		return nil, fmt.Errorf("port %q: %w", name, ErrNoPort)
	}
	p := d.ports[i]
	if !p.open || d.closed {
		return nil, fmt.Errorf("port %s: %w", name, ErrNotOpen)
	}
	if p.client != nil && present(p.client.f) {
		return nil, fmt.Errorf("port %s: %w", name, ErrBusy)
	}
	p.end(p.client)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to port %s: %w", name, err)
	}
	c := &client{f: os.NewFile(uintptr(fds[0]), "port"), input: make(chan []byte), taken: make(chan struct{}, 1), gone: make(chan struct{})}
	if d.rushed {
		_ = c.f.SetWriteDeadline(longAgo) // a socket has deadlines
	}
	p.client = c
	p.change()
	p.metrics.connections.Add(1)
	d.readers.Go(func() { p.read(c) })
	return os.NewFile(uintptr(fds[1]), "port-client"), nil
}

// change tells who waits that the port is another. Device.mu is held.
func (p *port) change() {
	close(p.changed)
	p.changed = make(chan struct{})
	p.d.awaken()
}

// end ends the connection of c, which may be nil or have ended already. Device.mu is held.
func (p *port) end(c *client) {
	if c == nil || p.client != c {
		return
	}
	p.client, p.news.gap = nil, p.news.told
	close(c.gone)
	c.f.Close() // wakes who reads it, or writes to it
	p.change()
}

// leave is end for who does not hold Device.mu.
func (p *port) leave(c *client) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.end(c)
}

// setOpen follows the guest's opening and closing of the port. Device.mu is held.
func (p *port) setOpen(open bool) {
	if p.open == open {
		return
	}
	p.open = open
	if c := p.client; c != nil && !open && !c.closing.Swap(true) {
		_ = eventfd.Signal(p.tx.Kick()) // fails on a closed file: then nothing is sent any more
	}
	p.change()
}

// present tells whether somebody is at the other end of f: writing nothing to a socket
// fails once that is closed.
func present(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	there := false
	err = conn.Control(func(fd uintptr) { there = attended(fd) })
	return err == nil && there
}

func attended(fd uintptr) bool {
	_, err := unix.Write(int(fd), nil)
	return err == nil
}

// read takes what c sends until it leaves. A client that only sends no more stays.
func (p *port) read(c *client) {
	defer p.leave(c)
	for {
		b := make([]byte, inputSize)
		n, err := c.f.Read(b)
		if n > 0 && !c.hand(b[:n]) {
			return
		}
		if err != nil {
			break
		}
	}
	if conn, err := c.f.SyscallConn(); err == nil {
		_ = conn.Read(func(fd uintptr) bool { return !attended(fd) }) // the end of it is all there is to know
	}
}

// hand gives b to the guest; it is false when c has left before the guest has taken it.
func (c *client) hand(b []byte) bool {
	t := time.NewTicker(look)
	defer t.Stop()
	for give := c.input; ; {
		select {
		case give <- b:
			give = nil
		case <-c.taken:
			return true
		case <-c.gone:
			return false
		case <-t.C:
			if !present(c.f) {
				return false
			}
		}
	}
}
