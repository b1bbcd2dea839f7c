package console

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestConform(t *testing.T) {
	printed := func(t testing.TB) *virtiotest.Subject {
		r := newRig(t, all)
		return &virtiotest.Subject{
			Driver: r.Driver, Queue: transmitQueue, Others: []int{receiveQueue},
			Request: func() (readable, writable []virtiotest.Buf) {
				return []virtiotest.Buf{r.M.Put([]byte("printed"))}, nil
			},
			Used: func(n uint32) {
				if n != 0 {
					t.Errorf("used length = %d, want 0", n)
				}
			},
		}
	}
	typed := func(t testing.TB) *virtiotest.Subject {
		r := newRig(t, all)
		quit := make(chan struct{})
		go func() { // somebody who never stops to type
			for {
				select {
				case r.keys <- []byte("k"):
				case <-quit:
					return
				}
			}
		}()
		t.Cleanup(func() { close(quit) })
		return &virtiotest.Subject{
			Driver: r.Driver, Queue: receiveQueue, Others: []int{transmitQueue},
			Request: func() (readable, writable []virtiotest.Buf) { return nil, []virtiotest.Buf{r.M.Room(8)} },
			Used: func(n uint32) {
				if n != 1 {
					t.Errorf("used length = %d, want 1", n)
				}
			},
		}
	}
	t.Run("transmit", func(t *testing.T) { virtiotest.Conform(t, all, printed) })
	t.Run("receive", func(t *testing.T) { virtiotest.Conform(t, all, typed) })
}
