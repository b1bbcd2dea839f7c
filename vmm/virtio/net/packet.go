package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// maxPacket is the largest packet with its header in bytes: 64 KiB of IP behind
// an Ethernet header with a VLAN tag.
const maxPacket = headerSize + 18 + 65535

// numBuffers is the offset of num_buffers in struct virtio_net_hdr.
const numBuffers = 10

// transmit sends what the driver made available. What the tap does not take is
// dropped, as on any wire.
func (p *userPath) transmit(s *worker.Session) error {
	buf := make([]byte, maxPacket)
	m := &p.d.metrics
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Writable) > 0 {
			return 0, fmt.Errorf("packet with buffers to write: %w", queue.ErrMalformed)
		}
		size := queue.Len(c.Readable)
		if size > maxPacket {
			m.txDropped.Add(1)
			return 0, nil
		}
		n, err := queue.CopyOut(s.Memory, c.Readable, 0, buf)
		if err != nil {
			return 0, err
		}
		switch _, err := p.tap.Write(buf[:n]); {
		case err == nil:
			m.txPackets.Add(1)
			m.txBytes.Add(size)
		case errors.Is(err, os.ErrDeadlineExceeded) && s.Stopped():
			// Stopped with a full tap: this packet is lost.
			m.txDropped.Add(1)
		default:
			m.txDropped.Add(1)
		}
		return 0, nil
	})
}

// receive hands packets of the tap to the driver.
func (p *userPath) receive(s *worker.Session) error {
	r := receiver{p: p, s: s}
	buf := make([]byte, maxPacket)
	for !s.Stopped() {
		n, err := p.tap.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return worker.ErrStopped
		case errors.Is(err, syscall.EBADFD):
			return fmt.Errorf("read tap: %w", err)
		case err != nil:
			p.d.metrics.errors.Add(1)
			return fmt.Errorf("read tap: %w", err)
		case n < headerSize:
			continue
		}
		if err := r.deliver(buf[:n]); err != nil {
			return err
		}
	}
	return worker.ErrStopped
}

// A receiver puts packets into chains.
type receiver struct {
	p      *userPath
	s      *worker.Session
	chains []queue.Chain // scratch
}

// deliver puts packet, which starts with its header, into one chain, or with
// VIRTIO_NET_F_MRG_RXBUF into as many as it takes (section 5.1.6.4).
func (r *receiver) deliver(packet []byte) error {
	n, room, err := r.collect(len(packet))
	if err != nil {
		return err
	}
	m := &r.p.d.metrics
	if room < uint64(len(packet)) {
		m.rxDropped.Add(1)
		r.s.Queue.Undo(r.chains[:n]...)
		return nil
	}
	binary.LittleEndian.PutUint16(packet[numBuffers:], uint16(n))
	m.rxPackets.Add(1)
	m.rxBytes.Add(uint64(len(packet)))
	for _, c := range r.chains[:n] {
		done, err := queue.CopyIn(r.s.Memory, c.Writable, 0, packet)
		if err != nil {
			return err
		}
		if err := r.s.Queue.Stage(c.Head, uint32(done)); err != nil {
			return err
		}
		packet = packet[done:]
	}
	if err := r.s.Queue.Publish(); err != nil {
		return err
	}
	return r.s.Interrupt()
}

// collect takes chains for size bytes: one, or with mergeable buffers as many as
// it takes. It sleeps until they are there.
func (r *receiver) collect(size int) (n int, room uint64, err error) {
	merge := r.s.Features.Has(featMrgRxbuf)
	for n == 0 || merge && room < uint64(size) {
		if n == int(r.s.Queue.Size()) {
			return 0, 0, fmt.Errorf("%d receive buffers with room for %d bytes: %w", n, room, queue.ErrMalformed)
		}
		if n == len(r.chains) {
			r.chains = append(r.chains, queue.Chain{})
		}
		c := &r.chains[n]
		if err := r.s.Next(c); err != nil {
			r.s.Queue.Undo(r.chains[:n]...)
			return 0, 0, err
		}
		n++
		if len(c.Readable) > 0 {
			return 0, 0, fmt.Errorf("receive buffer to be read: %w", queue.ErrMalformed)
		}
		room += queue.Len(c.Writable)
	}
	return n, room, nil
}
