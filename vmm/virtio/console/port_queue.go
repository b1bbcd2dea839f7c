package console

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// current is who input is taken from: the client, as long as the guest has the port open.
// changed is closed when that is another. Device.mu is not held.
func (p *port) current() (c *client, changed <-chan struct{}) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.client != nil && p.open && !p.client.closing.Load() {
		return p.client, p.changed
	}
	return nil, p.changed
}

// receive hands what the client sends to the guest.
func (p *port) receive(s *worker.Session) error {
	var c queue.Chain
	for {
		if err := p.take(); err != nil {
			return errors.Join(s.Interrupt(), err)
		}
		if err := s.Next(&c); err != nil {
			return err
		}
		if from, _ := p.current(); from == nil || from != p.rest.from {
			s.Queue.Undo(c) // the client has left meanwhile
			continue
		}
		if len(c.Readable) > 0 || len(c.Writable) == 0 {
			return fmt.Errorf("port input buffer that cannot be written: %w", queue.ErrMalformed)
		}
		n, err := queue.CopyIn(s.Memory, c.Writable, 0, p.rest.b)
		if err != nil {
			return err
		}
		if p.rest.b = p.rest.b[n:]; len(p.rest.b) == 0 {
			p.rest.from.taken <- struct{}{} // has room: there is one input at a time
		}
		p.metrics.received.Add(uint64(n))
		if err := s.Queue.Push(c.Head, uint32(n)); err != nil {
			return err
		}
		if err := s.Interrupt(); err != nil {
			return err
		}
	}
}

// take waits until there is input of a client that is connected.
func (p *port) take() error {
	for {
		c, changed := p.current()
		if c != nil && c == p.rest.from && len(p.rest.b) > 0 {
			return nil
		}
		p.rest = input{from: c}
		var in <-chan []byte
		if c != nil {
			in = c.input
		}
		select {
		case <-p.d.quit:
			return worker.ErrStopped
		case <-changed:
		case p.rest.b = <-in:
		}
	}
}

// transmit sends what the guest writes to the client. What is written while there is none
// is lost: a driver knows, and Linux has its writers wait.
func (p *port) transmit(s *worker.Session) error {
	buf := make([]byte, maxWrite)
	s.Idle = p.idle
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Writable) > 0 {
			return 0, fmt.Errorf("port output with buffers to write: %w", queue.ErrMalformed)
		}
		to := p.receiver()
		if p.sent > 0 && to != p.sentTo {
			to = nil // the rest is not for who has come since
		}
		for p.sentTo = to; ; {
			n, err := queue.CopyOut(s.Memory, c.Readable, p.sent, buf)
			if err != nil {
				return 0, err
			}
			if n == 0 {
				p.sent = 0
				return 0, nil
			}
			if to, err = p.send(to, buf[:n]); err != nil || s.Stopped() {
				s.Queue.Undo(*c) // the next life goes on at p.sent
				return 0, errors.Join(s.Interrupt(), worker.ErrStopped)
			}
		}
	})
}

// receiver is the client, if there is one.
func (p *port) receiver() *client {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.client
}

// send sends b to the client to, which is nil where there is none any more, and returns it
// as long as it is there. An error means that it was interrupted.
func (p *port) send(to *client, b []byte) (*client, error) {
	n := 0
	if to != nil {
		var err error
		n, err = to.f.Write(b)
		p.sent += uint64(n)
		p.metrics.sent.Add(uint64(n))
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return to, err
		}
		p.leave(to)
	}
	p.sent += uint64(len(b) - n)
	p.metrics.discarded.Add(uint64(len(b) - n))
	return nil, nil
}

// idle ends the connection of a port that the guest has closed, once all that was written
// before that is sent: what was made available before is there at the second look.
func (p *port) idle() {
	c := p.receiver()
	switch {
	case c == nil || !c.closing.Load():
		p.whole = false
	case !p.whole:
		p.whole = true
		_ = eventfd.Signal(p.tx.Kick()) // fails on a closed file: then it is over anyway
	default:
		p.whole = false
		p.leave(c)
	}
}

var longAgo = time.Unix(1, 0)

// hurry has nobody wait for a client, or lets them wait again.
func (d *Device) hurry(yes bool) {
	var by time.Time
	if yes {
		by = longAgo
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rushed = yes
	for _, p := range d.ports {
		if p.client != nil {
			_ = p.client.f.SetWriteDeadline(by) // a socket has deadlines
		}
	}
}
