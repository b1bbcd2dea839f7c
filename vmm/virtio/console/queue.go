package console

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// maxWrite is the most bytes handed to the output at once.
const maxWrite = 4096

// transmit prints what the guest sends.
func (d *Device) transmit(s *worker.Session) error {
	buf := make([]byte, maxWrite)
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Writable) > 0 {
			return 0, fmt.Errorf("console output with buffers to write: %w", queue.ErrMalformed)
		}
		for off := uint64(0); !s.Stopped(); {
			n, err := queue.CopyOut(s.Memory, c.Readable, off, buf)
			if err != nil {
				return 0, err
			}
			if n == 0 {
				break
			}
			d.print(buf[:n])
			off += uint64(n)
		}
		return 0, nil
	})
}

func (d *Device) print(b []byte) {
	d.metrics.printed.Add(uint64(len(b)))
	if _, err := d.c.Output.Write(b); err != nil {
		d.metrics.outputErrors.Add(1)
	}
}

// receive hands what is typed to the guest.
func (d *Device) receive(s *worker.Session) error {
	var c queue.Chain
	for {
		if len(d.rest) == 0 {
			if err := d.input(); err != nil {
				return err
			}
			continue
		}
		if err := s.Next(&c); err != nil {
			return err
		}
		if len(c.Readable) > 0 || len(c.Writable) == 0 {
			return fmt.Errorf("console input buffer that cannot be written: %w", queue.ErrMalformed)
		}
		n, err := queue.CopyIn(s.Memory, c.Writable, 0, d.rest)
		if err != nil {
			return err
		}
		d.rest = d.rest[n:]
		d.metrics.typed.Add(uint64(n))
		if err := s.Queue.Push(c.Head, uint32(n)); err != nil {
			return err
		}
		if err := s.Interrupt(); err != nil {
			return err
		}
	}
}

// input waits for something typed.
func (d *Device) input() error {
	select {
	case <-d.quit:
		return worker.ErrStopped
	case b, ok := <-d.c.Input:
		if !ok {
			<-d.quit // nothing will be typed any more
			return worker.ErrStopped
		}
		d.rest = b
		return nil
	}
}
