//go:build roottest

package vsock

import (
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestConform(t *testing.T) {
	virtiotest.Conform(t, all, func(t testing.TB) *virtiotest.Subject {
		r := newRig(t, guestCID, all)
		// A packet of somebody else's, which the kernel takes and forgets without an answer.
		h := make([]byte, hdrSize)
		binary.LittleEndian.PutUint64(h, guestCID+1)
		binary.LittleEndian.PutUint64(h[8:], hostCID)
		binary.LittleEndian.PutUint16(h[28:], typ)
		binary.LittleEndian.PutUint16(h[30:], opRW)
		return &virtiotest.Subject{
			Driver: r.Driver, Queue: 1, Others: []int{0, 2},
			Request: func() (readable, writable []virtiotest.Buf) { return []virtiotest.Buf{r.M.Put(h)}, nil },
			Used: func(n uint32) {
				if n != 0 {
					t.Errorf("used length = %d, want 0", n)
				}
			},
		}
	})
}
