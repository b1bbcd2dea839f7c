package console

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// Events of control messages (section 5.3.6.2). DEVICE_REMOVE is never sent, as ports stay,
// nor is RESIZE, without VIRTIO_CONSOLE_F_SIZE.
const (
	eventDeviceReady = 0
	eventDeviceAdd   = 1
	eventPortReady   = 3
	eventConsolePort = 4
	eventPortOpen    = 6
	eventPortName    = 7
)

// controlSize is the size of struct virtio_console_control: port, event, value.
const controlSize = 8

// A control is one message. A name follows PORT_NAME.
type control struct {
	port         uint32
	event, value uint16
	name         string
}

func (c control) bytes() []byte {
	b := make([]byte, controlSize, controlSize+len(c.name))
	binary.LittleEndian.PutUint32(b, c.port)
	binary.LittleEndian.PutUint16(b[4:], c.event)
	binary.LittleEndian.PutUint16(b[6:], c.value)
	return append(b, c.name...)
}

// News is what the driver is still to be told of a port: as a state, so that a driver that
// asks over and over, or takes no message, makes it no larger.
type news struct {
	add   bool // that it is there
	ready bool // the driver has taken it
	about bool // what it is: a console, or its name
	told  bool // what the driver believes: it is connected
	gap   bool // it has been disconnected since told was
}

// next is the next message about port id, if there is one, and what is to be noted once
// the driver has it.
func (n *news) next(id uint32, name string, connected bool) (c control, note func(), ok bool) {
	switch {
	case n.add:
		return control{port: id, event: eventDeviceAdd}, func() { n.add = false }, true
	case !n.ready:
	case n.about && name == "":
		return control{port: id, event: eventConsolePort, value: 1}, func() { n.about = false }, true
	case n.about:
		return control{port: id, event: eventPortName, value: 1, name: name}, func() { n.about = false }, true
	case n.told && (n.gap || !connected):
		return control{port: id, event: eventPortOpen}, func() { n.told, n.gap = false, false }, true
	case !n.told && connected:
		return control{port: id, event: eventPortOpen, value: 1}, func() { n.told = true }, true
	}
	return control{}, nil, false
}

// message is the next one for the driver. mu is held.
func (d *Device) message() (c control, note func(), ok bool) {
	if c, note, ok = d.console.next(0, "", true); ok {
		return c, note, ok
	}
	for _, p := range d.ports {
		if c, note, ok = p.news.next(p.id, p.name, p.client != nil); ok {
			return c, note, ok
		}
	}
	return control{}, nil, false
}

// awaken has tellDriver look for news.
func (d *Device) awaken() {
	select {
	case d.tell <- struct{}{}:
	default:
	}
}

// tellDriver serves the control receive queue.
func (d *Device) tellDriver(s *worker.Session) error {
	var c queue.Chain
	for {
		d.mu.Lock()
		_, _, ok := d.message()
		d.mu.Unlock()
		if !ok {
			select {
			case <-d.quit:
				return errors.Join(s.Interrupt(), worker.ErrStopped)
			case <-d.tell:
			}
			continue
		}
		if err := s.Next(&c); err != nil {
			return err
		}
		if err := d.tellOne(s, &c); err != nil {
			return err
		}
	}
}

// tellOne sends the message that is next by now, if there still is one.
func (d *Device) tellOne(s *worker.Session, c *queue.Chain) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, note, ok := d.message()
	if !ok {
		s.Queue.Undo(*c)
		return nil
	}
	b := m.bytes()
	if len(c.Readable) > 0 || queue.Len(c.Writable) < uint64(len(b)) {
		return fmt.Errorf("control buffer of %d bytes to write, %d buffers to read, for a message of %d bytes: %w",
			queue.Len(c.Writable), len(c.Readable), len(b), queue.ErrMalformed)
	}
	if _, err := queue.CopyIn(s.Memory, c.Writable, 0, b); err != nil {
		return err
	}
	note()
	if err := s.Queue.Push(c.Head, uint32(len(b))); err != nil {
		return err
	}
	return s.Interrupt()
}

// hearDriver serves the control transmit queue. Linux spins until a message is used.
func (d *Device) hearDriver(s *worker.Session) error {
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Writable) > 0 {
			return 0, fmt.Errorf("control message with buffers to write: %w", queue.ErrMalformed)
		}
		var b [controlSize]byte
		n, err := queue.CopyOut(s.Memory, c.Readable, 0, b[:])
		if err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		if n < controlSize || !d.heard(le.Uint32(b[:]), le.Uint16(b[4:]), le.Uint16(b[6:])) {
			d.metrics.badControls.Add(1)
		}
		return 0, nil
	})
}

// heard takes a message of the driver's; it is false for one that makes no sense, which
// has no effect.
func (d *Device) heard(id uint32, event, value uint16) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.awaken()
	if event == eventDeviceReady {
		if value != 0 {
			d.console.add = true
			for _, p := range d.ports {
				p.news.add = true
			}
		}
		return true
	}
	if uint64(id) > uint64(len(d.ports)) {
		return false
	}
	n := &d.console
	if id > 0 {
		n = &d.ports[id-1].news
	}
	switch event {
	case eventPortReady:
		*n = news{ready: value != 0, about: value != 0}
	case eventPortOpen:
		if id > 0 {
			d.ports[id-1].setOpen(value != 0)
		}
	default:
		return false
	}
	return true
}
