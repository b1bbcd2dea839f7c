package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An IOMax bounds what the processes of a group do with a disk in a second (io.max), and what
// the kernel does for them: reads, and writes, which it counts apart. 0 is no limit.
type IOMax struct {
	// Bytes may be read, and as many be written.
	Bytes uint64
	// Operations are those of the disk: a request may become several, and several one.
	Operations uint64
}

// A Disk is a whole block device, by its number.
type Disk struct{ Major, Minor uint32 }

// ErrNoDisk says that a file lies on no block device: on a tmpfs.
var ErrNoDisk = errors.New("no block device")

// DiskOf is the disk that f lies on. Of a partition it is the whole disk: the kernel bounds no
// parts. It fails with ErrNoDisk where f lies in memory.
func DiskOf(f *os.File) (Disk, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Disk{}, fmt.Errorf("find disk of %s: %w", f.Name(), err)
	}
	d := Disk{unix.Major(st.Dev), unix.Minor(st.Dev)}
	dir := "/sys/dev/block/" + d.String()
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) && d.Major == 0 {
		return Disk{}, ErrNoDisk
	}
	if err != nil {
		return Disk{}, fmt.Errorf("find disk of %s: %w", f.Name(), err)
	}
	if _, err := os.Stat(dir + "/partition"); err != nil {
		return d, nil
	}
	// The kernel follows the link before it goes up.
	b, err := os.ReadFile(dir + "/../dev")
	if err != nil {
		return Disk{}, fmt.Errorf("find disk of %s: %w", f.Name(), err)
	}
	return parseDisk(strings.TrimSpace(string(b)))
}

// String is the disk as the kernel writes it, such as 259:0.
func (d Disk) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

func parseDisk(s string) (Disk, error) {
	major, minor, ok := strings.Cut(s, ":")
	a, err := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err != nil || err2 != nil {
		return Disk{}, fmt.Errorf("%q is no number of a disk", s)
	}
	return Disk{uint32(a), uint32(b)}, nil
}

// SetIOMax bounds what the group does with d from now on, instead of what held before.
func (g *Group) SetIOMax(d Disk, m IOMax) error {
	if err := write(g.dir, "io.max", ioMax(d, m)); err != nil {
		return fmt.Errorf("bound use of disk %v (CONFIG_BLK_CGROUP, CONFIG_BLK_DEV_THROTTLING): %w", d, err)
	}
	return nil
}

// ioMax is the line for io.max. Of operations it takes 32 bits.
func ioMax(d Disk, m IOMax) string {
	bytes, operations := "max", "max"
	if m.Bytes != 0 {
		bytes = strconv.FormatUint(m.Bytes, 10)
	}
	if m.Operations != 0 {
		operations = strconv.FormatUint(min(m.Operations, math.MaxUint32), 10)
	}
	return fmt.Sprintf("%v rbps=%s wbps=%s riops=%s wiops=%s", d, bytes, bytes, operations, operations)
}
