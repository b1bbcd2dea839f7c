package hugepages

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

// nodes is the folder with a folder for each NUMA node, below sysfs.
const nodes = "devices/system/node"

// A Size is the pool of pages of one size, as a whole and by NUMA nodes.
type Size struct {
	Pool
	PageBytes int64
	Surplus   int64 // of Total: go as soon as they are free
	Nodes     []Node
}

// A Node is what a pool has on one NUMA node. What is promised is not promised on a
// certain one.
type Node struct {
	ID                   int
	Total, Free, Surplus int64
}

// Kept is how many pages stay when they are free: what was asked for.
func (n Node) Kept() int64 { return n.Total - n.Surplus }

// Sizes reads all pools, by ascending size of their pages; none where the kernel or the
// processor has none.
func Sizes() ([]Size, error) { return sizes(sysfs) }

func sizes(root string) ([]Size, error) {
	dir := filepath.Join(root, "kernel/mm/hugepages")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pools of huge pages: %w", err)
	}
	var out []Size
	for _, e := range entries {
		bytes, ok := pageBytes(e.Name())
		if !ok {
			continue
		}
		s := Size{PageBytes: bytes}
		if s.Pool, err = read(dir, uint64(bytes)); err != nil {
			return nil, err
		}
		if s.Surplus, err = number(dir, e.Name(), "surplus_hugepages"); err != nil {
			return nil, err
		}
		if s.Nodes, err = onNodes(root, e.Name()); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Size) int { return int((a.PageBytes - b.PageBytes) >> 10) })
	return out, nil
}

// onNodes reads what the nodes have of a pool.
func onNodes(root, pool string) ([]Node, error) {
	dirs, err := filepath.Glob(filepath.Join(root, nodes, "node*", "hugepages", pool))
	if err != nil {
		return nil, fmt.Errorf("read pools of huge pages: %w", err)
	}
	var out []Node
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(filepath.Dir(dir)))
		n := Node{}
		if n.ID, err = strconv.Atoi(strings.TrimPrefix(name, "node")); err != nil {
			return nil, fmt.Errorf("read pools of huge pages: %s: %w", name, err)
		}
		for file, to := range map[string]*int64{"nr_hugepages": &n.Total, "free_hugepages": &n.Free, "surplus_hugepages": &n.Surplus} {
			if *to, err = number(dir, file); err != nil {
				return nil, err
			}
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Node) int { return a.ID - b.ID })
	return out, nil
}

// Set asks for a pool of so many pages of size bytes on a node. The kernel makes as many
// of them as it finds memory for and says nothing of the rest; of pages in use that
// are too many it makes surplus ones: read the pool after it.
func Set(size int64, node int, pages int64) error { return set(sysfs, size, node, pages) }

func set(root string, size int64, node int, pages int64) error {
	path := filepath.Join(root, nodes, fmt.Sprintf("node%d", node), "hugepages", fmt.Sprintf("hugepages-%dkB", size>>10), "nr_hugepages")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set pool of huge pages: %w", err)
	}
	_, err = f.WriteString(strconv.FormatInt(pages, 10))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set pool of huge pages: %w", err)
	}
	return nil
}

// pageBytes is the size of pages that the name of a folder says.
func pageBytes(name string) (int64, bool) {
	kib, ok := strings.CutPrefix(name, "hugepages-")
	kib, isKiB := strings.CutSuffix(kib, "kB")
	n, err := strconv.ParseInt(kib, 10, 40)
	return n << 10, ok && isKiB && err == nil && n > 0
}

func number(path ...string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return 0, fmt.Errorf("read pools of huge pages: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read pools of huge pages: %s: %w", path[len(path)-1], err)
	}
	return n, nil
}
