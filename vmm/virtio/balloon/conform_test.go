package balloon

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestConform(t *testing.T) {
	for name, queue := range map[string]int{"inflate": inflateQueue, "deflate": deflateQueue} {
		t.Run(name, func(t *testing.T) {
			virtiotest.Conform(t, all, func(t testing.TB) *virtiotest.Subject {
				_, d := plug(t)
				return &virtiotest.Subject{
					Driver: d, Queue: queue,
					Request: func() (readable, writable []virtiotest.Buf) { return list(d.M, 1000, 1001), nil },
					Used: func(n uint32) {
						if n != 0 {
							t.Errorf("used length = %d, want 0", n)
						}
					},
				}
			})
		})
	}
}
