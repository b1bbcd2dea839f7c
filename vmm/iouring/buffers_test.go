package iouring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is memory of the kernel's, as a guest's is.
func mapped(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

func span(b []byte) Iovec { return Iovec{Base: Address(b), Len: uint64(len(b))} }

func registered(t *testing.T, b []byte) *Buffers {
	t.Helper()
	buffers, err := Register(span(b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := buffers.Close(); err != nil {
			t.Error(err)
		}
	})
	return buffers
}

// TestFixed has two rings share memory, which outlives who registered it.
func TestFixed(t *testing.T) {
	memory := mapped(t, 64<<10)
	buffers := registered(t, memory)
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for i := range 2 {
		r, err := New(4, []*os.File{f}, []Op{OpReadv, OpWritev}, buffers)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if i == 1 {
			if err := buffers.Close(); err != nil {
				t.Fatal(err)
			}
		}
		from, to := memory[4096:8192], memory[60<<10:]
		copy(from, bytes.Repeat([]byte{byte(i + 1)}, 4096))
		if !r.Registered(span(from)) || !r.Registered(span(to)) {
			t.Fatal("memory is not registered")
		}
		if c := one(t, r, r.WriteFixed(0, span(from), 4096, i == 1, 5)); c != (Completion{5, 4096}) {
			t.Errorf("write: %+v", c)
		}
		if c := one(t, r, r.ReadFixed(0, span(to), 4096, 6)); c != (Completion{6, 4096}) || !bytes.Equal(from, to) {
			t.Errorf("read: %+v", c)
		}
		own := make([]byte, 4096)
		if r.Registered(span(own)) {
			t.Error("memory is registered that is not")
		}
		if c := one(t, r, r.ReadFixed(0, span(own), 4096, 7)); c != (Completion{7, -int32(unix.EFAULT)}) {
			t.Errorf("read into other memory: %+v, want EFAULT", c)
		}
	}
}

// TestNotFixed has a ring without registered memory, which the operations are not for.
func TestNotFixed(t *testing.T) {
	r, _ := newRing(t, OpReadv)
	b := make([]byte, 8)
	if r.Registered(span(b)) {
		t.Error("memory is registered with a ring that has none")
	}
	if c := one(t, r, r.ReadFixed(0, span(b), 0, 1)); c != (Completion{1, -int32(unix.EACCES)}) {
		t.Errorf("read: %+v, want EACCES", c)
	}
}

func TestRegisterNothing(t *testing.T) {
	for _, n := range []uint64{0, 1<<44 + 1, ^uint64(0)} {
		if _, err := Register(Iovec{Base: 1 << 30, Len: n}); !errors.Is(err, ErrBuffers) {
			t.Errorf("Register of %#x bytes = %v, want ErrBuffers", n, err)
		}
	}
	if _, err := Register(Iovec{Base: 4096, Len: 4096}); !errors.Is(err, unix.EFAULT) {
		t.Errorf("Register where nothing is mapped = %v, want EFAULT", err)
	}
}

func TestFind(t *testing.T) {
	const base = 1 << 40
	b := &Buffers{span: Iovec{Base: base, Len: 3*piece + 4096}}
	if p := b.pieces(); len(p) != 4 || p[3] != (Iovec{Base: base + 3*piece, Len: 4096}) {
		t.Fatalf("pieces() = %v", p)
	}
	for _, tt := range []struct {
		v    Iovec
		want uint16
		ok   bool
	}{
		{Iovec{Base: base, Len: 1}, 0, true},
		{Iovec{Base: base, Len: piece}, 0, true},
		{Iovec{Base: base, Len: piece + 1}, 0, false},
		{Iovec{Base: base + piece - 1, Len: 1}, 0, true},
		{Iovec{Base: base + piece - 1, Len: 2}, 0, false},
		{Iovec{Base: base + piece, Len: 2}, 1, true},
		{Iovec{Base: base + 3*piece, Len: 4096}, 3, true},
		{Iovec{Base: base + 3*piece, Len: 4097}, 0, false},
		{Iovec{Base: base + 3*piece + 4096, Len: 1}, 0, false},
		{Iovec{Base: base - 1, Len: 2}, 0, false},
		{Iovec{Base: base, Len: 0}, 0, false},
		{Iovec{Base: base, Len: ^uint64(0)}, 0, false},
		{Iovec{Base: ^uint64(0), Len: 2}, 0, false},
	} {
		n, ok := b.find(tt.v)
		if ok != tt.ok || ok && n != tt.want {
			t.Errorf("find(%+v) = %d, %v, want %d, %v", tt.v, n, ok, tt.want, tt.ok)
		}
	}
}
