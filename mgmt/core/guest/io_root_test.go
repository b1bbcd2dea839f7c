//go:build roottest

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// unboundedName is that of a guest whose VMM writes to its disk for as long as it lives, and
// keeps no limits.
const unboundedName = "unbounded"

// writeOn is what that VMM does.
func writeOn(disk *os.File) {
	b := make([]byte, 512<<10)
	for {
		for at := range 2 {
			if _, err := disk.WriteAt(b, int64(at*len(b))); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
		}
		if err := disk.Sync(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
}

// onDisk is a bench whose guests are on a real disk.
func onDisk(t *testing.T) (b *bench, disk cgroup.Disk) {
	t.Helper()
	node := scratch.Node(t)
	scratch.Format(t, node)
	dir, _ := scratch.Mount(t, node)
	t.Setenv("TMPDIR", dir)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if disk, err = cgroup.DiskOf(f); err != nil {
		t.Fatal(err)
	}
	return newBench(t), disk
}

// io is a file of the io controller of a guest.
func (b *bench) io(t *testing.T, guest, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.c.Cgroup, guest, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// written is how many bytes the VMM of a guest has written.
func (b *bench) written(t *testing.T, guest string) (n int64) {
	t.Helper()
	for _, f := range strings.Fields(b.io(t, guest, "io.stat")) {
		if s, ok := strings.CutPrefix(f, "wbytes="); ok {
			n, _ = strconv.ParseInt(s, 10, 64)
		}
	}
	return n
}

// TestDiskWall follows io.max of a VMM through all that changes what its disks may do, and a
// core that is started again.
func TestDiskWall(t *testing.T) {
	b, disk := onDisk(t)
	guest, g := b.create(t, 1), b.guest("web")
	g.HotplugSlots = 2
	g.DiskLimits = []*protocol.DiskLimits{{BytesPerSecond: 10 << 20, OperationsPerSecond: 100}, {BytesPerSecond: 20 << 20, BurstBytes: 4 << 20}}
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	holds := func(when string, bytes, operations uint64) {
		t.Helper()
		want := ""
		if bytes|operations != 0 {
			text := func(n uint64) string {
				if n == 0 {
					return "max"
				}
				return strconv.FormatUint(n, 10)
			}
			want = fmt.Sprintf("%v rbps=%[2]s wbps=%[2]s riops=%[3]s wiops=%[3]s", disk, text(bytes), text(operations))
		}
		if got := b.io(t, guest, "io.max"); got != want {
			t.Errorf("%s: io.max = %q, want %q", when, got, want)
		}
	}
	const first, second, own = 11 << 20, 24 << 20, 1 << 20
	holds("at first", first+second+own, 0)
	set := func(n int, l *protocol.DiskLimits) error { return b.SetDiskLimits(t.Context(), guest, n, l) }
	if err := set(0, &protocol.DiskLimits{BytesPerSecond: 100 << 20}); err != nil {
		t.Fatal(err)
	}
	holds("with a faster disk", 110<<20+second+own, 0)
	if err := set(0, &protocol.DiskLimits{BytesPerSecond: 10 << 20}); err != nil {
		t.Fatal(err)
	}
	holds("with a slower disk", first+second+own, 0)
	// This peer says that it has no other disk.
	wantCode(t, set(1, &protocol.DiskLimits{BytesPerSecond: 1 << 20}), hostcall.InvalidArgument)
	wantCode(t, set(7, nil), hostcall.InvalidArgument)
	holds("after what was refused", first+second+own, 0)

	if err := b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Size: 8 << 20}, nil); err != nil {
		t.Fatal(err)
	}
	holds("with a disk without limits", 0, 0)
	if err := b.Detach(t.Context(), guest, "disk2", true); err != nil {
		t.Fatal(err)
	}
	if err := b.Drop(t.Context(), guest, "disk2"); err != nil {
		t.Fatal(err)
	}
	holds("without that disk", first+second+own, 0)
	if err := b.AttachDisk(t.Context(), guest, 3, hostcall.Disk{Size: 8 << 20}, &protocol.DiskLimits{BytesPerSecond: 1 << 20, BurstBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	const third = 2 << 20
	holds("with a third disk", first+second+third+own, 0)

	// A core that ends after it has written down what holds, and before that does.
	if err := b.lookup(guest).group.SetIOMax(disk, cgroup.IOMax{}); err != nil {
		t.Fatal(err)
	}
	b.lookup(guest).client.close()
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.restart(t)
	holds("adopted", first+second+third+own, 0)

	// Each of the disks of another one has a limit of operations, too.
	other := b.create(t, 2)
	g = b.guest("other")
	g.NICs = nil
	g.DiskLimits = []*protocol.DiskLimits{{OperationsPerSecond: 100, BurstOperations: 20}, {OperationsPerSecond: 10}}
	if err := b.Start(t.Context(), other, g); err != nil {
		t.Fatal(err)
	}
	guest = other
	holds("of operations", 0, pieces*(120+11)+ownOperations)
	if err := set(0, &protocol.DiskLimits{BytesPerSecond: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	holds("without those of one", 0, 0)
}

// TestDiskWallHolds has a VMM that keeps no limits write as fast as it can: it gets no more
// than its disks may do.
func TestDiskWallHolds(t *testing.T) {
	b, _ := onDisk(t)
	guest, g := b.create(t, 1), b.guest(unboundedName)
	limits := &protocol.DiskLimits{BytesPerSecond: 1 << 20, BurstBytes: 1 << 20}
	g.DiskLimits = []*protocol.DiskLimits{limits, limits}
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	const most = 4<<20 + ownBytes // bytes a second
	begin, before := time.Now(), b.written(t, guest)
	for b.written(t, guest)-before < 4*most {
		if time.Since(begin) > 5*time.Minute {
			t.Fatalf("the VMM has written %d bytes", b.written(t, guest)-before)
		}
		time.Sleep(100 * time.Millisecond)
	}
	n, took := b.written(t, guest)-before, time.Since(begin)
	t.Logf("%d bytes in %v", n, took)
	// The kernel shares a second out to slices.
	if may := took.Seconds()*most*1.1 + most/4; float64(n) > may {
		t.Errorf("the VMM has written %d bytes in %v, and may write %.0f", n, took, may)
	}
}
