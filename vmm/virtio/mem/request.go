package mem

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// Requests and responses (section 5.15.6).
const (
	reqPlug      = 0
	reqUnplug    = 1
	reqUnplugAll = 2
	reqState     = 3

	respAck   = 0
	respNack  = 1
	respBusy  = 2
	respError = 3

	statePlugged   = 0
	stateUnplugged = 1
	stateMixed     = 2
)

// maxRequest is how many bytes are plugged in or unplugged at once: a device that is to
// stop does not wait for more. Linux asks for a memory block of its own at most.
const maxRequest = 2 << 30

// Offsets in struct virtio_mem_req and struct virtio_mem_resp.
const (
	reqType     = 0
	reqAddr     = 8
	reqBlocks   = 16
	requestSize = 24

	respType     = 0
	respState    = 8
	responseSize = 10
)

// errBusy asks the driver to ask again, or for less.
var errBusy = errors.New("too much at once")

// A request is what a driver asks for.
type request struct {
	kind   uint16
	addr   uint64
	blocks uint16
}

// A response answers it.
type response struct {
	kind  uint16
	state uint16 // of reqState
}

// serve answers requests.
func (d *Device) serve(s *worker.Session) error {
	return s.Each(func(c *queue.Chain) (uint32, error) {
		r, err := parse(s.Memory, c)
		if err != nil {
			return 0, err
		}
		a := d.answer(r, s.Stopped)
		var b [responseSize]byte
		binary.LittleEndian.PutUint16(b[respType:], a.kind)
		binary.LittleEndian.PutUint16(b[respState:], a.state)
		if _, err := queue.CopyIn(s.Memory, c.Writable, 0, b[:]); err != nil {
			return 0, err
		}
		return responseSize, nil
	})
}

// parse reads the request of a chain that has room for a response.
func parse(m *memory.Memory, c *queue.Chain) (request, error) {
	if in, out := queue.Len(c.Readable), queue.Len(c.Writable); in < requestSize || out < responseSize {
		return request{}, fmt.Errorf("memory request of %d bytes with %d for the response: %w", in, out, queue.ErrMalformed)
	}
	var b [requestSize]byte
	if _, err := queue.CopyOut(m, c.Readable, 0, b[:]); err != nil {
		return request{}, err
	}
	le := binary.LittleEndian
	return request{kind: le.Uint16(b[reqType:]), addr: le.Uint64(b[reqAddr:]), blocks: le.Uint16(b[reqBlocks:])}, nil
}

// answer does what is asked for, until stopped.
func (d *Device) answer(r request, stopped func() bool) response {
	n := uint64(r.blocks) * d.mem.Pluggable().Block
	switch r.kind {
	case reqPlug, reqUnplug:
		if n > maxRequest {
			return d.done(errBusy, nil, 0)
		}
	}
	switch r.kind {
	case reqPlug:
		return d.plug(r.addr, n)
	case reqUnplug:
		return d.done(d.mem.Unplug(r.addr, n), &d.metrics.unplugged, n)
	case reqUnplugAll:
		return d.done(d.unplugAll(stopped), nil, 0)
	case reqState:
		return d.state(r.addr, n)
	}
	return d.done(queue.ErrMalformed, nil, 0)
}

// plug plugs n bytes in, unless that is more than was asked for (section 5.15.6.2).
func (d *Device) plug(addr, n uint64) response {
	// Held, so that nobody asks for less in between.
	d.mu.Lock()
	defer d.mu.Unlock()
	if plugged := d.mem.Pluggable().Plugged; plugged > d.requested || n > d.requested-plugged {
		d.metrics.refused.Add(1)
		return response{kind: respNack}
	}
	return d.done(d.mem.Plug(addr, n), &d.metrics.plugged, n)
}

// unplugAll takes away what is plugged in, a block at a time.
func (d *Device) unplugAll(stopped func() bool) error {
	p := d.mem.Pluggable()
	for gpa := p.GPA; gpa < p.GPA+p.Size; gpa += p.Block {
		if !d.mem.Contains(gpa, p.Block) {
			continue
		}
		if stopped() {
			return errBusy
		}
		if err := d.mem.Unplug(gpa, p.Block); err != nil {
			return err
		}
		d.metrics.unplugged.Add(p.Block)
	}
	return nil
}

// state tells whether n bytes are plugged in.
func (d *Device) state(addr, n uint64) response {
	in, err := d.mem.PluggedIn(addr, n)
	r := d.done(err, nil, 0)
	switch in {
	case n:
		r.state = statePlugged
	case 0:
		r.state = stateUnplugged
	default:
		r.state = stateMixed
	}
	return r
}

// done is the response to what ended with err, or has done n bytes: the driver's fault is
// an error, and where the host could not it may try again.
func (d *Device) done(err error, sum *counter, n uint64) response {
	switch {
	case err == nil:
		if sum != nil {
			sum.Add(n)
		}
		return response{kind: respAck}
	case errors.Is(err, queue.ErrMalformed), errors.Is(err, memory.ErrOutOfRange), errors.Is(err, memory.ErrUnaligned),
		errors.Is(err, memory.ErrPlugged), errors.Is(err, memory.ErrUnplugged):
		d.metrics.refused.Add(1)
		return response{kind: respError}
	}
	d.metrics.failures.Add(1)
	return response{kind: respBusy}
}
