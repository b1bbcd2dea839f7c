package blk

import (
	"bytes"
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// Rings that were made before serve one disk after the other.
func TestSpareRings(t *testing.T) {
	var rings []*iouring.Ring
	for range 2 {
		r, err := NewRing(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		rings = append(rings, r)
	}
	if _, err := New(Config{File: os.Stdin, Queues: 3, Rings: rings}); err == nil {
		t.Error("a disk of three queues on two rings")
	}
	for range 3 {
		t.Run("disk", func(t *testing.T) {
			f, content := disk(t, 1<<20, os.O_RDWR)
			dev, err := New(Config{File: f, Queues: 2, Rings: rings})
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{Driver: virtiotest.NewMachine(t).Plug(dev), dev: dev, name: f.Name(), want: content}
			r.start(all)
			for i, ring := range r.rings {
				want := bytes.Repeat([]byte{byte(i + 1)}, 4096)
				if _, s, _ := r.do(ring, typeOut, uint64(8*i), want, 0); s != statusOK {
					t.Fatalf("write = %d", s)
				}
				if got, s, _ := r.do(ring, typeIn, uint64(8*i), nil, 4096); s != statusOK || !bytes.Equal(got, want) {
					t.Fatalf("read = %d", s)
				}
			}
		})
	}
}
