package net

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// testConform sends packets, which the host's side reads and forgets.
func testConform(t *testing.T, newWire func(testing.TB) *wire) {
	virtiotest.Conform(t, all, func(t testing.TB) *virtiotest.Subject {
		r := newRig(t, newWire(t), all)
		drain := func() {
			for b := make([]byte, 1<<12); ; {
				if _, _, err := unix.Recvfrom(r.w.host, b, unix.MSG_DONTWAIT); err != nil {
					return // nothing more
				}
			}
		}
		return &virtiotest.Subject{
			Driver: r.Driver, Queue: transmitQueue, Others: []int{receiveQueue},
			Request: func() (readable, writable []virtiotest.Buf) {
				drain()
				return []virtiotest.Buf{r.M.Put(append(make([]byte, headerSize), frame(60, 1)...))}, nil
			},
			Used: func(n uint32) {
				drain()
				if n != 0 {
					t.Errorf("used length = %d, want 0", n)
				}
			},
		}
	})
}

func TestUserPathConforms(t *testing.T) { testConform(t, newPipe) }
