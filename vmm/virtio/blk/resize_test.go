package blk

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// grow makes file and disk larger, and waits until the driver has been told.
func (r *rig) grow(size int) {
	r.M.T.Helper()
	before := r.Common(virtiotest.ConfigGeneration, 1)
	r.M.Must(os.Truncate(r.name, int64(size)))
	r.M.Must(r.dev.Resize(uint64(size)))
	if !r.Vector(0).Take(virtiotest.Patience) {
		r.M.T.Fatal("no configuration change interrupt")
	}
	if r.Common(virtiotest.ConfigGeneration, 1) == before {
		r.M.T.Error("config_generation has not changed")
	}
	if n := r.Device(cfgCapacity, 8); n != uint64(size/SectorSize) {
		r.M.T.Errorf("capacity = %d sectors, want %d", n, size/SectorSize)
	}
	r.want = append(r.want, make([]byte, size-len(r.want))...)
}

func TestResize(t *testing.T) {
	for _, flags := range []int{os.O_RDWR, os.O_RDWR | unix.O_DIRECT} {
		r := newRig(t, Config{Queues: 2}, 1<<20, flags, all)
		const end = 1 << 20 / SectorSize
		out := bytes.Repeat([]byte{7}, 4096)
		if _, s, _ := r.do(r.rings[0], typeOut, end, out, 0); s != statusIOErr {
			t.Fatalf("write past the end: status %d", s)
		}
		for size := 2 << 20; size <= 8<<20; size *= 2 {
			r.grow(size)
			sector := uint64(size/SectorSize - 8)
			if _, s, _ := r.do(r.rings[0], typeOut, sector, out, 0); s != statusOK {
				t.Fatalf("write before the new end: status %d", s)
			}
			copy(r.want[size-4096:], out)
			if got, s, _ := r.do(r.rings[1], typeIn, sector, nil, 4096); s != statusOK || !bytes.Equal(got, out) {
				t.Fatalf("read before the new end: status %d, or other bytes", s)
			}
			if _, s, _ := r.do(r.rings[1], typeIn, sector+8, nil, 512); s != statusIOErr {
				t.Fatalf("read past the new end: status %d", s)
			}
		}
		if _, s, _ := r.do(r.rings[1], typeOut, end-8, append(out, out...), 0); s != statusOK {
			t.Fatalf("write across the old end: status %d", s)
		}
		copy(r.want[1<<20-4096:], append(out, out...))
		if _, s, _ := r.do(r.rings[0], typeWriteZeroes, 0, segment(8<<20/SectorSize-16, 16, 0), 0); s != statusOK {
			t.Fatalf("write zeroes before the new end: status %d", s)
		}
		clear(r.want[8<<20-8192:])
		if !bytes.Equal(r.content(), r.want) {
			t.Error("file has other bytes than were written")
		}
	}
}

// A disk grows under load, while it is paused, and before a driver is there.
func TestResizeAnytime(t *testing.T) {
	r := newRig(t, Config{}, 1<<20, os.O_RDWR, all)
	for range 16 {
		r.rings[0].Add([]virtiotest.Buf{r.M.Put(header(typeIn, 8))}, []virtiotest.Buf{r.M.Room(512), r.M.Room(1)})
	}
	r.rings[0].Kick()
	r.grow(2 << 20)
	for range 16 {
		r.rings[0].Wait()
	}
	r.Transport.Pause()
	r.grow(3 << 20)
	r.Transport.Resume()
	if _, s, _ := r.do(r.rings[0], typeIn, 3<<20/SectorSize-1, nil, 512); s != statusOK {
		t.Errorf("after the pause: status %d", s)
	}
	r.Reset()
	r.M.Must(os.Truncate(r.name, 4<<20))
	r.M.Must(r.dev.Resize(4 << 20))
	if n := r.Device(cfgCapacity, 8); n != 4<<20/SectorSize {
		t.Errorf("capacity = %d sectors", n)
	}
	r.start(all)
	if _, s, _ := r.do(r.rings[0], typeIn, 4<<20/SectorSize-1, nil, 512); s != statusOK {
		t.Errorf("after the reset: status %d", s)
	}
}

func TestResizeRefuses(t *testing.T) {
	r := newRig(t, Config{}, 1<<20, os.O_RDWR, all)
	for _, size := range []uint64{0, 1<<20 - 512, 1<<20 + 1, 2 << 20, 1 << 63} {
		if err := r.dev.Resize(size); !errors.Is(err, ErrSize) {
			t.Errorf("Resize(%d) = %v, want %v", size, err, ErrSize)
		}
	}
	if err := r.dev.Resize(1 << 20); err != nil {
		t.Errorf("Resize to the same size = %v", err)
	}
	if n := r.Device(cfgCapacity, 8); n != 2048 {
		t.Errorf("capacity = %d sectors, want 2048", n)
	}
}
