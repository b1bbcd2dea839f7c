package blk

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// newRegisteredRig is a rig whose guest's memory is registered, but for its last page.
func newRegisteredRig(t *testing.T, flags int) *rig {
	t.Helper()
	m := virtiotest.NewMachine(t)
	buffers, err := iouring.Register(iouring.Iovec{Base: uint64(m.Mem.Regions()[0].HostAddr), Len: m.Mem.Size() - 4096})
	if err != nil {
		t.Fatal(err)
	}
	f, content := disk(t, 1<<20, flags)
	dev, err := New(Config{File: f, Queues: 2, Buffers: buffers})
	if err != nil {
		t.Fatal(err)
	}
	m.Must(buffers.Close())
	r := &rig{Driver: m.Plug(dev), dev: dev, name: f.Name(), want: content}
	r.start(all)
	return r
}

// TestRegistered has requests in one piece, in two that lie one behind the other, in two that
// do not, and outside of what is registered.
func TestRegistered(t *testing.T) {
	for _, flags := range []int{os.O_RDWR, os.O_RDWR | unix.O_DIRECT} {
		r := newRegisteredRig(t, flags)
		const n = 8192
		gpa := (r.M.Alloc(4*n) + 4095) &^ 4095
		last := r.M.Mem.Size() - 4096
		for i, tt := range []struct {
			bufs       []virtiotest.Buf
			registered bool
		}{
			{[]virtiotest.Buf{{GPA: gpa, Len: n}}, true},
			{[]virtiotest.Buf{{GPA: gpa, Len: n / 2}, {GPA: gpa + n/2, Len: n / 2}}, true},
			{[]virtiotest.Buf{{GPA: gpa + n/2, Len: n / 2}, {GPA: gpa, Len: n / 2}}, false},
			{[]virtiotest.Buf{{GPA: last, Len: 4096}}, false},
			{[]virtiotest.Buf{{GPA: last - 4096, Len: n}}, false},
		} {
			ring, status := r.rings[i%2], r.M.Room(1)
			sector, before := uint64(i)*n/SectorSize, r.dev.metrics.registered.Load()
			var want []byte
			for j, b := range tt.bufs {
				data := bytes.Repeat([]byte{byte(16*i + j + 1)}, int(b.Len))
				r.M.Must(r.M.Mem.WriteAt(b.GPA, data))
				want = append(want, data...)
			}
			ring.Do(append([]virtiotest.Buf{r.M.Put(header(typeOut, sector))}, tt.bufs...), []virtiotest.Buf{status})
			if s := r.M.Bytes(status)[0]; s != statusOK {
				t.Fatalf("request %d: write = %d", i, s)
			}
			copy(r.want[i*n:], want)
			for _, b := range tt.bufs {
				r.M.Must(r.M.Mem.Zero(b.GPA, uint64(b.Len)))
			}
			ring.Do([]virtiotest.Buf{r.M.Put(header(typeIn, sector))}, append(append([]virtiotest.Buf(nil), tt.bufs...), status))
			if s := r.M.Bytes(status)[0]; s != statusOK {
				t.Fatalf("request %d: read = %d", i, s)
			}
			var got []byte
			for _, b := range tt.bufs {
				got = append(got, r.M.Bytes(b)...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("request %d reads other than what was written", i)
			}
			if n := r.dev.metrics.registered.Load() - before; (n == 2) != tt.registered || n != 0 && n != 2 {
				t.Errorf("request %d: %d of 2 go by registered memory, want all: %v", i, n, tt.registered)
			}
		}
		if !bytes.Equal(r.content(), r.want) {
			t.Error("the disk has other than what was written")
		}
	}
}
