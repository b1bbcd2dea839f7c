package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/topology"
)

// ShareCPUs says on which CPUs the processes of g and of the groups below it run; of these,
// they may take exclusive for themselves (Part.Exclusive).
func (g *Group) ShareCPUs(cpus, exclusive []int) error {
	if err := write(g.dir, "cpuset.cpus", topology.FormatList(cpus)); err != nil {
		return fmt.Errorf("share CPUs out (CONFIG_CPUSETS): %w", err)
	}
	if err := write(g.dir, "cpuset.cpus.exclusive", topology.FormatList(exclusive)); err != nil {
		return fmt.Errorf("share CPUs out (Linux 6.7): %w", err)
	}
	return nil
}

// A Part is a group below a Group for some threads of its processes.
type Part struct {
	Name string
	CPUs []int // that the threads run on, of those of the Group
	// Exclusive is whether nobody else runs on these CPUs: neither other groups nor threads
	// of the kernel that are not of a CPU, and no load is balanced between them (a
	// partition of the kind isolated).
	Exclusive bool
}

// Split makes parts of g, which has no process yet: a process that is started in one of
// them (Part) has its threads there until they are moved (Part, Threads). g may use all
// CPUs of its parts. Limits of g hold for all of them.
func (g *Group) Split(parts ...Part) error {
	for _, p := range parts {
		if err := g.makePart(p); err != nil {
			return fmt.Errorf("make part %s of cgroup %s: %w", p.Name, g.dir, err)
		}
	}
	return nil
}

func (g *Group) makePart(p Part) error {
	dir := filepath.Join(g.dir, p.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := write(dir, "cgroup.type", "threaded"); err != nil {
		return err
	}
	if err := write(g.dir, "cgroup.subtree_control", "+cpuset"); err != nil {
		return err
	}
	cpus := topology.FormatList(p.CPUs)
	if err := write(dir, "cpuset.cpus", cpus); err != nil || !p.Exclusive {
		return err
	}
	for _, d := range []string{g.dir, dir} {
		if err := write(d, "cpuset.cpus.exclusive", cpus); err != nil {
			return err
		}
	}
	if err := write(dir, "cpuset.cpus.partition", "isolated"); err != nil {
		return err
	}
	// What is wrong with a partition shows when it is read.
	b, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus.partition"))
	if err == nil && strings.TrimSpace(string(b)) != "isolated" {
		err = fmt.Errorf("take CPUs %s from all others: the kernel says %q", cpus, strings.TrimSpace(string(b)))
	}
	return err
}

// Part is the part of g of that name.
func (g *Group) Part(name string) *Group { return &Group{filepath.Join(g.dir, name)} }

// Threads opens the file that a thread writes `0` to, to become one of the group's. It
// may be of a process that is in another part of the same Group.
func (g *Group) Threads() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(g.dir, "cgroup.threads"), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open threads of cgroup: %w", err)
	}
	return f, nil
}

// ThreadIDs are the numbers of the threads in g.
func (g *Group) ThreadIDs() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.threads"))
	if err != nil {
		return nil, fmt.Errorf("read threads of cgroup: %w", err)
	}
	var out []int
	for word := range strings.FieldsSeq(string(b)) {
		tid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("read threads of cgroup %s: %w", g.dir, err)
		}
		out = append(out, tid)
	}
	return out, nil
}

// Move makes a thread one of g's: it is in another part of the same Group.
func (g *Group) Move(tid int) error {
	if err := write(g.dir, "cgroup.threads", strconv.Itoa(tid)); err != nil {
		return fmt.Errorf("move thread %d to cgroup: %w", tid, err)
	}
	return nil
}

// removeParts removes the parts of g, which has no process any more.
func (g *Group) removeParts() error {
	entries, err := os.ReadDir(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, os.Remove(filepath.Join(g.dir, e.Name())))
		}
	}
	return err
}
