package scratch

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A Failing is a disk on another one, of the device mapper's (the kernel's
// Documentation/admin-guide/device-mapper), that works until it is to fail: at the moment that a test
// wants, for which a table with the target linear is exchanged for one with the target error, or by the
// clock, with the target flakey.
type Failing struct {
	Node string
	Size int64 // bytes

	t       testing.TB
	control *os.File
	name    string
	under   string // the disk below, as MAJOR:MINOR
}

const sector = 512

// A part of the disk, from sector from on.
type part struct {
	from, sectors uint64
	kind          string // of target
	more          string // parameters of the target besides where the part lies
}

// Kinds of target.
const (
	linear = "linear"
	broken = "error"
	flaky  = "flakey"
)

// NewFailing makes a disk on node, all of which works, until the test ends.
func NewFailing(t testing.TB, node string) *Failing {
	t.Helper()
	f := &Failing{t: t, name: "failing"}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	f.under = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	disk, err := os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	f.Size, err = disk.Seek(0, 2)
	disk.Close()
	if err == nil {
		f.control, err = os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	}
	if err != nil {
		t.Fatalf("%v (CONFIG_BLK_DEV_DM)", err)
	}
	t.Cleanup(func() { f.control.Close() })
	dev, err := f.do(unix.DM_DEV_CREATE, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := f.do(unix.DM_DEV_REMOVE, 0, nil); err != nil {
			t.Errorf("remove %s: %v", f.Node, err)
		}
	})
	f.Node = fmt.Sprintf("/dev/dm-%d", unix.Minor(dev))
	f.Heal()
	return f
}

// Fail has all that is read or written from byte from to byte to end with an error, until Heal.
// Both are multiples of 512.
func (f *Failing) Fail(from, to int64) {
	f.t.Helper()
	a, b, end := uint64(from/sector), uint64(to/sector), uint64(f.Size/sector)
	f.exchange(part{0, a, linear, ""}, part{a, b - a, broken, ""}, part{b, end - b, linear, ""})
}

// FailAll has all that is read or written end with an error, until Heal.
func (f *Failing) FailAll() { f.t.Helper(); f.Fail(0, f.Size) }

// Heal has all of the disk work.
func (f *Failing) Heal() { f.t.Helper(); f.exchange(part{0, uint64(f.Size / sector), linear, ""}) }

// What of a disk fails that comes and goes.
type Flaw string

const (
	Reads      Flaw = "1 error_reads" // only reads
	Everything Flaw = ""
)

// Flicker has the disk work for a second and fail for a second, in turn, until Heal.
func (f *Failing) Flicker(what Flaw) {
	f.t.Helper()
	f.exchange(part{0, uint64(f.Size / sector), flaky, "1 1 " + string(what)})
}

// exchange gives the disk another table. What is on its way ends by the old one; a file system
// is not told.
func (f *Failing) exchange(parts ...part) {
	f.t.Helper()
	const quietly = unix.DM_SKIP_LOCKFS_FLAG
	var table []part
	for _, p := range parts {
		if p.sectors > 0 {
			table = append(table, p)
		}
	}
	for _, step := range []struct {
		request uintptr
		flags   uint32
		table   []part
	}{{unix.DM_TABLE_LOAD, 0, table}, {unix.DM_DEV_SUSPEND, unix.DM_SUSPEND_FLAG | quietly, nil}, {unix.DM_DEV_SUSPEND, quietly, nil}} {
		if _, err := f.do(step.request, step.flags, step.table); err != nil {
			f.t.Fatalf("exchange table of %s: %v", f.Node, err)
		}
	}
}

// parameters are those of a part's target.
func (f *Failing) parameters(p part) string {
	if p.kind == broken {
		return ""
	}
	return fmt.Sprintf("%s %d %s", f.under, p.from, p.more)
}

// FailFile has all that is read or written of bytes from to to of a file end with an error, until
// Heal; the rest of the disk works, with what the file system keeps there for itself. The file
// lies on f, in one piece between the two, which are multiples of 4096.
func (f *Failing) FailFile(file *os.File, from, to int64) {
	f.t.Helper()
	const block = 4096
	first, err := blockOf(file, from/block)
	last, err2 := blockOf(file, to/block-1)
	if err != nil || err2 != nil {
		f.t.Fatalf("find %s on its disk: %v, %v", file.Name(), err, err2)
	}
	if first == 0 || last-first != (to-from)/block-1 {
		f.t.Fatalf("bytes %d to %d of %s lie in blocks %d to %d: not in one piece", from, to, file.Name(), first, last)
	}
	f.Fail(first*block, (last+1)*block)
}

// Forget has the kernel read a file from its disk again, and what of the file system it can.
func Forget(t testing.TB, file *os.File) {
	t.Helper()
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
}
