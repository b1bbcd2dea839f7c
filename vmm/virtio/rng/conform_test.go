package rng

import (
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestConform(t *testing.T) {
	virtiotest.Conform(t, all, func(t testing.TB) *virtiotest.Subject {
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		d := plug(t, zero)
		return &virtiotest.Subject{
			Driver:  d,
			Request: func() (readable, writable []virtiotest.Buf) { return nil, []virtiotest.Buf{d.M.Room(16)} },
			Used: func(n uint32) {
				if n != 16 {
					t.Errorf("used length = %d, want 16", n)
				}
			},
		}
	})
}
