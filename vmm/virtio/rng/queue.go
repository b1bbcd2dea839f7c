package rng

import (
	"fmt"
	"io"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// maxRead bounds what one request gets in bytes: a driver may ask for gigabytes,
// and takes less.
const maxRead = 4096

// serve answers requests.
func (d *Device) serve(s *worker.Session) error {
	buf := make([]byte, maxRead)
	return s.Each(func(c *queue.Chain) (uint32, error) {
		n := min(queue.Len(c.Writable), maxRead)
		if n == 0 || len(c.Readable) > 0 {
			return 0, fmt.Errorf("entropy request with %d bytes to write and %d buffers to read: %w",
				n, len(c.Readable), queue.ErrMalformed)
		}
		if _, err := io.ReadFull(d.file, buf[:n]); err != nil {
			return 0, fmt.Errorf("read entropy: %w", err)
		}
		if _, err := queue.CopyIn(s.Memory, c.Writable, 0, buf[:n]); err != nil {
			return 0, err
		}
		clear(buf[:n]) // the guest's randomness is nobody else's
		d.metrics.requests.Add(1)
		d.metrics.bytes.Add(n)
		return uint32(n), nil
	})
}
