package net

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// The control queue (section 5.1.6.5): struct virtio_net_ctrl is a class, a command,
// what belongs to it, and the device's answer.
const (
	classMQ  = 4
	setPairs = 0 // of classMQ: a le16 of pairs, 1 to max_virtqueue_pairs

	ackOK    = 0
	ackError = 1
)

// serveControl answers commands.
func (d *Device) serveControl(s *worker.Session) error {
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Readable) == 0 || queue.Len(c.Writable) == 0 {
			return 0, fmt.Errorf("network command without room for its answer: %w", queue.ErrMalformed)
		}
		var command [4]byte
		n, err := queue.CopyOut(s.Memory, c.Readable, 0, command[:])
		if err != nil {
			return 0, err
		}
		if _, err := queue.CopyIn(s.Memory, c.Writable, 0, []byte{d.command(command[:n])}); err != nil {
			return 0, err
		}
		return 1, nil
	})
}

// command carries out a command and returns the answer.
func (d *Device) command(c []byte) (ack byte) {
	if len(c) != 4 || c[0] != classMQ || c[1] != setPairs {
		return ackError
	}
	n := int(binary.LittleEndian.Uint16(c[2:]))
	if n < 1 || n > len(d.paths) {
		return ackError
	}
	if err := d.setPairs(n); err != nil {
		d.metrics.errors.Add(1)
		return ackError
	}
	return ackOK
}

// setPairs has the tap give packets to the first n pairs only.
func (d *Device) setPairs(n int) error {
	for ; d.attached < n; d.attached++ {
		if err := d.attach(d.attached, true); err != nil {
			return err
		}
	}
	for ; d.attached > n; d.attached-- {
		if err := d.attach(d.attached-1, false); err != nil {
			return err
		}
	}
	return nil
}
