package iouring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// TestABI checks the mirrored structs against linux/io_uring.h.
func TestABI(t *testing.T) {
	var (
		s sqe
		c cqe
		p params
		r restriction
	)
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof sqe", unsafe.Sizeof(s), 64},
		{"sqe.fd", unsafe.Offsetof(s.fd), 4},
		{"sqe.off", unsafe.Offsetof(s.off), 8},
		{"sqe.addr", unsafe.Offsetof(s.addr), 16},
		{"sqe.len", unsafe.Offsetof(s.len), 24},
		{"sqe.opFlags", unsafe.Offsetof(s.opFlags), 28},
		{"sqe.userData", unsafe.Offsetof(s.userData), 32},
		{"sqe.bufIndex", unsafe.Offsetof(s.bufIndex), 40},
		{"sqe.fileIndex", unsafe.Offsetof(s.fileIndex), 44},
		{"sizeof cqe", unsafe.Sizeof(c), 16},
		{"cqe.res", unsafe.Offsetof(c.res), 8},
		{"sizeof params", unsafe.Sizeof(p), 120},
		{"params.sqOff", unsafe.Offsetof(p.sqOff), 40},
		{"params.cqOff", unsafe.Offsetof(p.cqOff), 80},
		{"sqOff.array", unsafe.Offsetof(p.sqOff.array), 24},
		{"cqOff.cqes", unsafe.Offsetof(p.cqOff.cqes), 20},
		{"sizeof restriction", unsafe.Sizeof(r), 16},
		{"restriction.arg", unsafe.Offsetof(r.arg), 2},
		{"sizeof cloneBuffers", unsafe.Sizeof(cloneBuffers{}), 32},
		{"sizeof Iovec", unsafe.Sizeof(Iovec{}), unsafe.Sizeof(unix.Iovec{})},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

func newRing(t *testing.T, ops ...Op) (*Ring, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r, err := New(4, []*os.File{f}, ops, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, f
}

// wait submits, and waits until there is a completion.
func wait(r *Ring) error {
	if err := r.Submit(); err != nil {
		return err
	}
	for !r.Announce(true) {
		if err := eventfd.Wait(r.Event()); err != nil {
			return err
		}
	}
	return nil
}

// one waits for one completion.
func one(t *testing.T, r *Ring, ok bool) Completion {
	t.Helper()
	if !ok {
		t.Fatal("ring is full")
	}
	if err := wait(r); err != nil {
		t.Fatal(err)
	}
	c, ok := r.Next()
	if !ok {
		t.Fatal("no completion")
	}
	return c
}

func TestRequests(t *testing.T) {
	r, f := newRing(t, OpReadv, OpWritev, OpFsync, OpFallocate)
	text := []byte("sixteen bytes...")
	iov := func(b []byte) []Iovec { return []Iovec{{Base: Address(b), Len: uint64(len(b))}} }
	for i := range uint64(20) { // round the rings
		w := iov(text)
		if c := one(t, r, r.Writev(0, w, 16*i, i%2 == 0, i)); c != (Completion{i, 16}) {
			t.Fatalf("write %d: %+v", i, c)
		}
	}
	if c := one(t, r, r.Fdatasync(0, 7)); c != (Completion{7, 0}) {
		t.Errorf("fdatasync: %+v", c)
	}
	back := make([]byte, 16)
	v := iov(back)
	if c := one(t, r, r.Readv(0, v, 16*19, 8)); c != (Completion{8, 16}) || !bytes.Equal(back, text) {
		t.Errorf("read: %+v, %q", c, back)
	}
	if c := one(t, r, r.Readv(0, v, 1<<20, 9)); c != (Completion{9, 0}) {
		t.Errorf("read past the end: %+v", c)
	}
	if c := one(t, r, r.Fallocate(0, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 16, 10)); c != (Completion{10, 0}) {
		t.Errorf("fallocate: %+v", c)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil || len(b) != 320 || !bytes.Equal(b[:16], make([]byte, 16)) || !bytes.Equal(b[16:32], text) {
		t.Errorf("file = %q, %v", b, err)
	}
}

func TestFull(t *testing.T) {
	r, _ := newRing(t, OpFsync)
	for i := range uint64(4) {
		if !r.Fdatasync(0, i) {
			t.Fatalf("full after %d of 4", i)
		}
	}
	if r.Fdatasync(0, 4) {
		t.Error("a fifth request went into a ring of 4")
	}
	for range 4 {
		if err := wait(r); err != nil {
			t.Fatal(err)
		}
		if c, ok := r.Next(); !ok || c.Result != 0 {
			t.Errorf("completion %+v, %v", c, ok)
		}
	}
}

// TestRestricted shows that a ring does nothing but what it was made for: a
// process that has been taken over cannot open files through it.
func TestRestricted(t *testing.T) {
	r, f := newRing(t, OpReadv)
	if c := one(t, r, r.Fdatasync(0, 1)); c.Result != -int32(unix.EACCES) {
		t.Errorf("operation that was not named: %+v, want EACCES", c)
	}
	const opOpenat = 18
	e := r.next(opOpenat, unix.AT_FDCWD, 2)
	if c := one(t, r, e != nil); c.Result != -int32(unix.EACCES) {
		t.Errorf("openat: %+v, want EACCES", c)
	}
	e = r.next(OpReadv, int(f.Fd()), 3)
	e.flags = 0 // a descriptor, not a registered file
	if c := one(t, r, true); c.Result != -int32(unix.EACCES) {
		t.Errorf("descriptor that was not registered: %+v, want EACCES", c)
	}
	if err := registerFileSet(r.fd, []*os.File{f}); err == nil {
		t.Error("more files could be registered")
	}
}

// TestQuiet has the event signalled for those completions alone that are announced.
func TestQuiet(t *testing.T) {
	r, _ := newRing(t, OpFsync)
	for _, announced := range []bool{false, true} {
		if r.Announce(announced) {
			t.Fatal("a completion of nothing")
		}
		var limit time.Time
		if !announced {
			limit = time.Now().Add(100 * time.Millisecond)
		}
		if err := r.Event().SetReadDeadline(limit); err != nil {
			t.Fatal(err)
		}
		r.Fdatasync(0, 3)
		if err := r.Submit(); err != nil || r.Behind() {
			t.Fatalf("behind: %v, %v", r.Behind(), err)
		}
		err := eventfd.Wait(r.Event())
		if announced && err != nil || !announced && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("announced: %v, wait for the event: %v", announced, err)
		}
		for !r.Announce(false) {
			time.Sleep(time.Millisecond)
		}
		if c, ok := r.Next(); !ok || c != (Completion{3, 0}) {
			t.Errorf("completion = %+v, %v", c, ok)
		}
	}
}
