package rng

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

var all = virtio.OrderedRing

func TestMain(m *testing.M) { os.Exit(virtiotest.Both(m, &all)) }

// pattern is an entropy file whose bytes are known.
func pattern(t testing.TB, n int) *os.File {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	name := filepath.Join(t.TempDir(), "entropy")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func plug(t testing.TB, f *os.File) *virtiotest.Driver {
	t.Helper()
	d, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	return virtiotest.NewMachine(t).Plug(d)
}

func TestFill(t *testing.T) {
	for _, f := range []virtio.Features{0, virtio.FeatureEventIdx, all} {
		d := plug(t, pattern(t, 1<<16))
		r := d.Queue(0, 8, d.Negotiate(f))
		d.Start()
		for i := range 20 { // round the ring
			buf := d.M.Room(64)
			if n := r.Do(nil, buf.Cut(50)); n != 64 {
				t.Fatalf("used length = %d, want 64", n)
			}
			want := make([]byte, 64)
			for j := range want {
				want[j] = byte((i*64 + j) * 7)
			}
			if got := d.M.Bytes(buf); !bytes.Equal(got, want) {
				t.Fatalf("request %d: got %x, want %x", i, got, want)
			}
		}
	}
}

func TestBounded(t *testing.T) {
	d := plug(t, pattern(t, 1<<16))
	r := d.Queue(0, 8, d.Negotiate(all))
	d.Start()
	buf := d.M.Room(maxRead + 100)
	if n := r.Do(nil, []virtiotest.Buf{buf}); n != maxRead {
		t.Errorf("used length = %d, want %d", n, maxRead)
	}
	if got := d.M.Bytes(buf)[maxRead:]; !bytes.Equal(got, bytes.Repeat([]byte{0xaa}, 100)) {
		t.Errorf("bytes past the bound were written: %x", got)
	}
}

func TestMalformed(t *testing.T) {
	d := plug(t, pattern(t, 1<<16))
	for name, buf := range map[string]virtiotest.Buf{
		"readable":       d.M.Room(16),
		"outside memory": {GPA: virtiotest.MemorySize - 8, Len: 16},
		"wraps":          {GPA: ^uint64(0) - 8, Len: 16},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.Queue(0, 8, d.Negotiate(all))
			d.Start()
			if name == "readable" {
				r.Add([]virtiotest.Buf{buf}, nil)
			} else {
				r.Add(nil, []virtiotest.Buf{buf})
			}
			r.Kick()
			d.WaitBroken()
		})
	}
	r := d.Queue(0, 8, d.Negotiate(all))
	d.Start()
	if n := r.Do(nil, []virtiotest.Buf{d.M.Room(8)}); n != 8 {
		t.Errorf("after a reset: used length = %d, want 8", n)
	}
}

func TestEntropyEnds(t *testing.T) {
	d := plug(t, pattern(t, 10))
	r := d.Queue(0, 8, d.Negotiate(all))
	d.Start()
	r.Add(nil, []virtiotest.Buf{d.M.Room(64)})
	r.Kick()
	d.WaitBroken()
}

func TestNoFile(t *testing.T) {
	if d, err := New(nil); err == nil {
		t.Errorf("New(nil) = %v, want an error", d)
	}
}

// FuzzRng lets a driver fill the descriptors of the queue at will.
func FuzzRng(f *testing.F) {
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 2, 0, 0, 0}, uint16(3))
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0, 0}, uint16(1))
	zero, err := os.Open("/dev/zero")
	if err != nil {
		f.Fatal(err)
	}
	d := plug(f, zero)
	r := d.Queue(0, 16, d.Negotiate(all))
	f.Fuzz(func(t *testing.T, desc []byte, idx uint16) {
		d.M.Reuse(t)
		r.Fuzz(d.Negotiate(virtiotest.FuzzFeatures(all, idx)), desc, idx)
		d.AddStatus(virtio.DriverOK)
		r.Kick()
		r.Settle()
		d.Reset()
	})
}

// TestInOrder has the device use buffers in the order in which they came, as
// VIRTIO_F_IN_ORDER promises.
func TestInOrder(t *testing.T) {
	d := plug(t, pattern(t, 1<<16))
	f := d.Negotiate(all)
	if !f.Has(virtio.FeatureInOrder) {
		t.Fatalf("features %#x lack VIRTIO_F_IN_ORDER", f)
	}
	r := d.Queue(0, 8, f)
	d.Start()
	for range 5 {
		var heads []uint16
		for range 3 {
			heads = append(heads, r.Add(nil, d.M.Room(64).Cut(32)))
		}
		r.Kick()
		for i, want := range heads {
			if got, _ := r.Wait(); got != want {
				t.Fatalf("used chain %d is %d, want %d", i, got, want)
			}
		}
	}
}
