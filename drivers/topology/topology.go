// Package topology tells what is near to what in the host: its NUMA nodes with their
// CPUs, memory, pools of huge pages and PCI devices, and how CPUs share cores, sockets
// and caches. It reads sysfs as the kernel's Documentation/ABI/stable/sysfs-devices-node,
// Documentation/ABI/stable/sysfs-devices-system-cpu and Documentation/admin-guide/
// cputopology.rst have it, and how fast memory is in the firmware's tables (access.go).
package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysfs is where it is mounted.
const sysfs = "/sys"

// A Host is what is near to what at one moment.
type Host struct {
	Nodes []Node // by ascending ID; none where the kernel knows none (CONFIG_NUMA)
	CPUs  []CPU  // that are online, by ascending ID
}

// A Node is a NUMA node.
type Node struct {
	ID        int
	CPUs      []int // that are online; none where it is memory alone
	Distances []int // to each of Host.Nodes, 10 to itself
	// MemoryBytes is what the kernel has of it, 0 for a node of CPUs alone; FreeBytes
	// what nobody uses, AvailableBytes that and what the kernel can drop: page
	// cache and other caches.
	MemoryBytes, FreeBytes, AvailableBytes int64
	Pools                                  []Pool // by ascending size
	Devices                                []Device
}

// A Pool is the huge pages of one size on one node.
type Pool struct {
	PageBytes   int64
	Total, Free int64 // pages; those that are free may be promised to somebody
}

// A Device is a PCI device.
type Device struct {
	Address        string // 0000:01:00.0
	Class          int    // 24 bits
	Vendor, Device int
}

// A CPU is one that runs programs: a thread of a core.
type CPU struct {
	ID, Socket, Die, Core int   // Core is the number within the die
	Node                  int   // -1 where it is of none
	Siblings              []int // the CPUs of its core, itself too
	Caches                []Cache
}

// A Cache is one that a CPU uses.
type Cache struct {
	Level int
	Type  string // Data, Instruction or Unified
	Bytes int64
	CPUs  []int // those that share it
}

// Read reads the topology of this machine.
func Read() (*Host, error) { return read(sysfs) }

// Node is the one with that ID.
func (h *Host) Node(id int) (Node, bool) {
	i := slices.IndexFunc(h.Nodes, func(n Node) bool { return n.ID == id })
	if i < 0 {
		return Node{}, false
	}
	return h.Nodes[i], true
}

func read(root string) (*Host, error) {
	h := &Host{}
	r := &reader{root: root}
	r.nodes(h)
	r.cpus(h)
	r.devices(h)
	if r.err != nil {
		return nil, fmt.Errorf("read topology: %w", r.err)
	}
	return h, nil
}

// A reader reads files below root, until the first error.
type reader struct {
	root string
	err  error
}

// text is what is in a file, without the line's end; missing where there is no such file.
func (r *reader) text(path ...string) (s string, missing bool) {
	if r.err != nil {
		return "", true
	}
	b, err := os.ReadFile(filepath.Join(append([]string{r.root}, path...)...))
	if errors.Is(err, fs.ErrNotExist) {
		return "", true
	}
	if err != nil {
		r.err = err
		return "", true
	}
	return strings.TrimSpace(string(b)), false
}

// list is a list of numbers; none where there is no such file.
func (r *reader) list(path ...string) []int {
	s, missing := r.text(path...)
	if missing {
		return nil
	}
	l, err := ParseList(s)
	if err != nil {
		r.err = fmt.Errorf("%s: %w", filepath.Join(path...), err)
	}
	return l
}

// number is a number of any base that its prefix tells, otherwise where there is no such
// file.
func (r *reader) number(otherwise int64, path ...string) int64 {
	s, missing := r.text(path...)
	if missing {
		return otherwise
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		r.err = fmt.Errorf("%s: %w", filepath.Join(path...), err)
		return otherwise
	}
	return n
}

// names are what is in a folder; nothing where there is no such folder.
func (r *reader) names(path string) []string {
	entries, err := os.ReadDir(filepath.Join(r.root, path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.err == nil {
		r.err = err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

const nodesDir = "devices/system/node"

func (r *reader) nodes(h *Host) {
	for _, id := range r.list(nodesDir, "online") {
		dir := filepath.Join(nodesDir, fmt.Sprintf("node%d", id))
		n := Node{ID: id, CPUs: r.list(dir, "cpulist")}
		distances, _ := r.text(dir, "distance")
		for word := range strings.FieldsSeq(distances) {
			d, err := strconv.Atoi(word)
			if err != nil {
				r.err = fmt.Errorf("%s/distance: %w", dir, err)
				return
			}
			n.Distances = append(n.Distances, d)
		}
		r.memory(dir, &n)
		r.pools(dir, &n)
		h.Nodes = append(h.Nodes, n)
	}
}

// memory reads lines as `Node 0 MemFree:  1234 kB`.
func (r *reader) memory(dir string, n *Node) {
	text, _ := r.text(dir, "meminfo")
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 5 || f[4] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			r.err = fmt.Errorf("%s/meminfo: %w", dir, err)
			return
		}
		switch f[2] {
		case "MemTotal:":
			n.MemoryBytes = kib << 10
		case "MemFree:":
			n.FreeBytes = kib << 10
			n.AvailableBytes += kib << 10
		case "Active(file):", "Inactive(file):", "KReclaimable:":
			n.AvailableBytes += kib << 10
		}
	}
}

func (r *reader) pools(dir string, n *Node) {
	dir = filepath.Join(dir, "hugepages")
	for _, name := range r.names(dir) {
		size, ok := strings.CutPrefix(name, "hugepages-")
		size, isKiB := strings.CutSuffix(size, "kB")
		kib, err := strconv.ParseInt(size, 10, 40)
		if !ok || !isKiB || err != nil {
			continue
		}
		n.Pools = append(n.Pools, Pool{
			PageBytes: kib << 10,
			Total:     r.number(0, dir, name, "nr_hugepages"), Free: r.number(0, dir, name, "free_hugepages"),
		})
	}
	slices.SortFunc(n.Pools, func(a, b Pool) int { return int((a.PageBytes - b.PageBytes) >> 10) })
}

func (r *reader) cpus(h *Host) {
	const dir = "devices/system/cpu"
	for _, id := range r.list(dir, "online") {
		at := filepath.Join(dir, fmt.Sprintf("cpu%d", id))
		c := CPU{
			ID: id, Node: -1,
			Socket: int(r.number(0, at, "topology/physical_package_id")),
			Die:    int(r.number(0, at, "topology/die_id")),
			Core:   int(r.number(0, at, "topology/core_id")),
			// Also called core_cpus_list; the older name is on all kernels.
			Siblings: r.list(at, "topology/thread_siblings_list"),
		}
		for _, n := range h.Nodes {
			if slices.Contains(n.CPUs, id) {
				c.Node = n.ID
			}
		}
		for _, name := range r.names(filepath.Join(at, "cache")) {
			if strings.HasPrefix(name, "index") {
				c.Caches = append(c.Caches, r.cache(filepath.Join(at, "cache", name)))
			}
		}
		h.CPUs = append(h.CPUs, c)
	}
}

// cache reads one; its size is written as 32K.
func (r *reader) cache(dir string) Cache {
	c := Cache{Level: int(r.number(0, dir, "level")), CPUs: r.list(dir, "shared_cpu_list")}
	c.Type, _ = r.text(dir, "type")
	size, missing := r.text(dir, "size")
	if missing {
		return c
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(size, "K"), 10, 40)
	if err != nil {
		r.err = fmt.Errorf("%s/size: %w", dir, err)
	}
	c.Bytes = kib << 10
	return c
}

// devices reads which node PCI devices are near to: those of which the firmware says
// nothing (-1) are left out, but on a host with one node.
func (r *reader) devices(h *Host) {
	const dir = "bus/pci/devices"
	for _, address := range r.names(dir) {
		at := filepath.Join(dir, address)
		node := int(r.number(-1, at, "numa_node"))
		d := Device{
			Address: address, Class: int(r.number(0, at, "class")),
			Vendor: int(r.number(0, at, "vendor")), Device: int(r.number(0, at, "device")),
		}
		for i := range h.Nodes {
			if h.Nodes[i].ID == node || len(h.Nodes) == 1 {
				h.Nodes[i].Devices = append(h.Nodes[i].Devices, d)
			}
		}
	}
}
