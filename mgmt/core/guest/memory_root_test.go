//go:build roottest

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"golang.org/x/sys/unix"
)

// touches is what VMMs do that use memory: "hogs" all of the guest's, "hoards" looks
// for pages of the pool besides, and "greedy" takes more than its cgroup may have.
func touches(name string, spec *protocol.Spec, files []*os.File) *protocol.Error {
	failed := func(format string, args ...any) *protocol.Error {
		return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf(format, args...)}
	}
	switch name {
	case "hogs":
		m, err := memory.Map(files[spec.Memory], spec.MemoryBytes)
		if err == nil && m.PageSize() != spec.Backing.Kind().PoolSize() {
			return failed("pages of %d bytes", m.PageSize())
		}
		if err == nil {
			err = m.Populate()
		}
		if err != nil {
			return failed("%v", err)
		}
	case "hoards":
		for _, extra := range []int{0, unix.MAP_NORESERVE} {
			b, err := unix.Mmap(-1, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB|extra)
			if err == nil {
				err = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
			}
			if err == nil {
				return failed("there are pages of the pool for who has none")
			}
		}
	case "greedy":
		b, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err == nil {
			err = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
		}
		return failed("is alive after taking too much: %v", err)
	}
	return nil
}

// setPool makes the pool of 2 MiB pages as large as that.
func setPool(t *testing.T, pages int) {
	t.Helper()
	t.Cleanup(func() { _ = os.WriteFile("/proc/sys/vm/nr_hugepages", []byte("0"), 0) })
	if err := os.WriteFile("/proc/sys/vm/nr_hugepages", []byte(strconv.Itoa(pages)), 0); err != nil {
		t.Fatal(err)
	}
	if got := pool(t); got != (hugepages.Pool{Total: int64(pages), Free: int64(pages)}) {
		t.Fatalf("the pool is %+v, want %d pages", got, pages)
	}
}

func pool(t *testing.T) hugepages.Pool {
	t.Helper()
	p, err := hugepages.Read(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pooled is a guest of 64 MiB on 32 pages of the pool.
func (b *bench) pooled(name string) *hostcall.Guest {
	g := b.guest(name)
	g.NICs, g.Backing = nil, &protocol.Backing{Pages: protocol.Pages2MiB}
	return g
}

// TestPool has a pool that is too small, then one that just holds a guest.
func TestPool(t *testing.T) {
	b := newBench(t)
	setPool(t, 16)
	guest, other := b.create(t, 1), b.create(t, 2)
	refused := func(id, want string) {
		t.Helper()
		var e *hostcall.Error
		if err := b.Start(t.Context(), id, b.pooled("vm")); !errors.As(err, &e) || e.Code != hostcall.ResourceExhausted ||
			e.Field != "guest.memoryBytes" || !strings.Contains(e.Message, want) {
			t.Errorf("Start: %#v, want %q", err, want)
		}
	}
	refused(guest, "16 of its 16 pages of 2MiB free, 32 are asked for")
	if got := pool(t); got.Available() != 16 {
		t.Errorf("after a refusal the pool is %+v", got)
	}
	setPool(t, 32)
	if err := b.Start(t.Context(), guest, b.pooled("vm")); err != nil {
		t.Fatal(err)
	}
	if got := pool(t); got.Available() != 0 || got.Free != 32 {
		t.Errorf("with a guest that has touched nothing the pool is %+v, want all pages promised", got)
	}
	for file, want := range map[string]int64{"hugetlb.2MB.max": 64 << 20, "hugetlb.2MB.rsvd.max": 0, "hugetlb.1GB.max": 0,
		"memory.max": overhead(64<<20, protocol.Pages2MiB, 1) + 1<<20 + 8192} { // its disks lie in a tmpfs
		text, err := os.ReadFile(filepath.Join(b.c.Cgroup, guest, file))
		if got, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err != nil || got > want || got < want-4096 {
			t.Errorf("%s = %q, %v, want %d", file, text, err, want)
		}
	}
	refused(other, "0 of its 32 pages")
	if err := b.Kill(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if got := pool(t); got.Available() != 32 {
		t.Errorf("when the guest is gone the pool is %+v", got)
	}
	if err := b.Start(t.Context(), guest, b.pooled("hogs")); err != nil {
		t.Errorf("a guest that touches all its memory: %v", err)
	}
	if got := pool(t); got.Free != 0 {
		t.Errorf("then the pool is %+v, want no page free", got)
	}
}

// TestPoolIsNotForTheTaking has a VMM that looks for more than it was given.
func TestPoolIsNotForTheTaking(t *testing.T) {
	b := newBench(t)
	setPool(t, 8)
	b.start(t, 1, "hoards")
}

// TestGigantic has a guest on the only page of 1 GiB of the machine, and then asks
// for two, for a part of one, and for pages of a size that there is not.
func TestGigantic(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	g := b.pooled("hogs")
	g.Backing.Pages, g.MemoryBytes = protocol.Pages1GiB, 1<<30
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	g.MemoryBytes = 2 << 30
	if err := b.Start(t.Context(), guest, g); code(err) != hostcall.ResourceExhausted || !strings.Contains(err.Error(), "1 of its 1 pages of 1GiB free, 2 are asked for") {
		t.Errorf("Start on two pages: %v", err)
	}
	g.MemoryBytes = 64 << 20
	if err := b.Start(t.Context(), guest, g); code(err) != hostcall.InvalidArgument {
		t.Errorf("Start on part of a page: %v", err)
	}
	g.Backing.Pages = "4MiB"
	var e *hostcall.Error
	if err := b.Start(t.Context(), guest, g); !errors.As(err, &e) || e.Field != "guest.backing.pages" {
		t.Errorf("Start on pages of 4 MiB: %#v", err)
	}
}

// TestStarved has a VMM that is killed for want of memory: that is said.
func TestStarved(t *testing.T) {
	b := newBench(t)
	var e *hostcall.Error
	if err := b.Start(t.Context(), b.create(t, 1), b.guest("greedy")); !errors.As(err, &e) || e.Code != hostcall.ResourceExhausted ||
		!strings.Contains(e.Message, "no memory left") {
		t.Errorf("Start: %#v", err)
	}
}
