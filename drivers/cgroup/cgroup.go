// Package cgroup makes, limits, empties and removes control groups of version
// 2, after the kernel's Documentation/admin-guide/cgroup-v2.rst.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/topology"
)

// A Group is a control group's folder.
type Group struct{ dir string }

// Limits bound a Group. A zero field sets nothing.
type Limits struct {
	MemoryMax int64 // bytes; no swap besides, and all die together at the limit
	PIDsMax   int64 // processes and threads
	CPUWeight int64 // 1 to 10000, 100 is everybody's
	CPUMax    int64 // CPUs' worth of time, also where nobody else wants it
	// Hugetlb is how many bytes of the host's pools the group's processes may
	// allocate, by the size of the pages; sizes that are missing are 0. None may be
	// promised to them besides. Where the kernel has no hugetlb controller it sets
	// nothing, as nil does.
	Hugetlb map[uint64]int64
	// CPUs and Nodes are what the group's processes run on and have their memory from; none
	// are those of the group above.
	CPUs, Nodes []int
}

// cpuPeriod is over how many microseconds CPUMax holds: the kernel's own choice.
const cpuPeriod = 100_000

// controllers are those that Limits and IOMax need.
var controllers = []string{"cpu", "cpuset", "io", "memory", "pids"}

// Enable makes the controllers for Limits and IOMax, hugetlb where the kernel has it, available to the groups below each
// of dirs, which lie one in the other, outermost first. Folders that are
// missing are made.
func Enable(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("enable controllers: %w", err)
		}
		// Optional: a kernel without it has no pools either, or cannot bound them.
		_ = write(dir, "cgroup.subtree_control", "+hugetlb")
		for _, c := range controllers {
			if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
				return fmt.Errorf("enable controller %s in %s (CONFIG_MEMCG, CONFIG_CGROUP_PIDS, CONFIG_CGROUP_SCHED, CONFIG_CPUSETS, CONFIG_BLK_CGROUP): %w", c, dir, err)
			}
		}
	}
	return nil
}

// Create makes the group dir with limits l. On an error nothing is left.
func Create(dir string, l Limits) (*Group, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	g := &Group{dir}
	if err := g.limit(l); err != nil {
		return nil, errors.Join(fmt.Errorf("create cgroup %s: %w", dir, err), os.Remove(dir))
	}
	return g, nil
}

// Open returns the group dir, which need not exist: then it is an empty one.
func Open(dir string) *Group { return &Group{dir} }

func (g *Group) limit(l Limits) error {
	if l.MemoryMax > 0 {
		if err := write(g.dir, "memory.max", strconv.FormatInt(l.MemoryMax, 10)); err != nil {
			return err
		}
		if err := write(g.dir, "memory.oom.group", "1"); err != nil {
			return err
		}
		// Missing where the kernel has no swap.
		if err := write(g.dir, "memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if l.PIDsMax > 0 {
		if err := write(g.dir, "pids.max", strconv.FormatInt(l.PIDsMax, 10)); err != nil {
			return err
		}
	}
	if l.CPUWeight > 0 {
		if err := write(g.dir, "cpu.weight", strconv.FormatInt(l.CPUWeight, 10)); err != nil {
			return err
		}
	}
	for file, list := range map[string][]int{"cpuset.cpus": l.CPUs, "cpuset.mems": l.Nodes} {
		if len(list) == 0 {
			continue
		}
		if err := write(g.dir, file, topology.FormatList(slices.Sorted(slices.Values(list)))); err != nil {
			return err
		}
	}
	if l.CPUMax > 0 {
		if err := write(g.dir, "cpu.max", fmt.Sprintf("%d %d", l.CPUMax*cpuPeriod, cpuPeriod)); err != nil {
			return err
		}
	}
	if l.Hugetlb != nil {
		return g.limitHugetlb(l.Hugetlb)
	}
	return nil
}

// hugetlbSizes are the names of the sizes of huge pages in files of the controller.
var hugetlbSizes = map[string]uint64{"2MB": 2 << 20, "1GB": 1 << 30}

// limitHugetlb bounds what the processes allocate of each pool, and what they have
// set aside for themselves (rsvd).
func (g *Group) limitHugetlb(most map[uint64]int64) error {
	for name, size := range hugetlbSizes {
		for file, n := range map[string]int64{".max": most[size], ".rsvd.max": 0} {
			err := write(g.dir, "hugetlb."+name+file, strconv.FormatInt(n, 10))
			// Missing: the controller, or pages of that size.
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// SetMemoryMax changes Limits.MemoryMax.
func (g *Group) SetMemoryMax(n int64) error {
	return write(g.dir, "memory.max", strconv.FormatInt(n, 10))
}

// File opens the group's folder, for starting a process in it
// (CLONE_INTO_CGROUP).
func (g *Group) File() (*os.File, error) { return os.Open(g.dir) }

// MemoryCurrent is how many bytes the group's processes use, page cache included.
func (g *Group) MemoryCurrent() (int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.current"))
	if err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory use of %s: %w", g.dir, err)
	}
	return n, nil
}

// Starved reports whether a process in the group was killed for want of memory, the
// group's or the host's.
func (g *Group) Starved() bool {
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return false // the group is gone, or never was
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// Populated reports whether a process is in the group.
func (g *Group) Populated() (bool, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup events: %w", err)
	}
	return strings.Contains("\n"+string(b), "\npopulated 1\n"), nil
}

// Kill kills every process in the group (cgroup.kill). A group that does not
// exist has none; one that is removed meanwhile answers with ENODEV.
func (g *Group) Kill() error {
	if err := write(g.dir, "cgroup.kill", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("kill cgroup %s: %w", g.dir, err)
	}
	return nil
}

// Remove kills every process in the group, waits up to timeout for their end
// and removes the group and its parts: CPUs that they had for themselves are everybody's
// again. A group that does not exist is removed already.
func (g *Group) Remove(timeout time.Duration) error {
	if err := g.Kill(); err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	for {
		// Of a folder of cgroupfs only itself is removed: its files need not be.
		err := g.removeParts()
		if err == nil {
			err = os.Remove(g.dir)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func write(dir, file, value string) error {
	// No O_CREATE: a file that is missing means a controller that is missing.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("write %s: %w", value, err)
	}
	return nil
}
