package blk

import (
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestConform(t *testing.T) {
	virtiotest.Conform(t, all, func(t testing.TB) *virtiotest.Subject {
		r := newRig(t, Config{Queues: 2}, 1<<20, os.O_RDWR, all)
		return &virtiotest.Subject{
			Driver: r.Driver, Queue: 1, Others: []int{0},
			Request: func() (readable, writable []virtiotest.Buf) {
				return []virtiotest.Buf{r.M.Put(header(typeIn, 8))}, []virtiotest.Buf{r.M.Room(512 + 1)}
			},
			Used: func(n uint32) {
				if n != 512+1 {
					t.Errorf("used length = %d, want a sector and the status", n)
				}
			},
		}
	})
}
