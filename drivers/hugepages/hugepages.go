// Package hugepages tells what is in the host's pools of huge pages, after the
// kernel's Documentation/admin-guide/mm/hugetlbpage.rst.
package hugepages

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pools is the folder with a folder for each size of pages.
const pools = "/sys/kernel/mm/hugepages"

// A Pool counts the pages of one size, on all NUMA nodes.
type Pool struct {
	Total    int64 // pages in the pool
	Free     int64 // not allocated
	Reserved int64 // of those that are free, promised to somebody already
}

// Available is how many pages can be promised yet.
func (p Pool) Available() int64 { return max(p.Free-p.Reserved, 0) }

// Read reads the pool of pages of size bytes.
func Read(size uint64) (Pool, error) { return read(pools, size) }

func read(root string, size uint64) (Pool, error) {
	dir := filepath.Join(root, fmt.Sprintf("hugepages-%dkB", size>>10))
	var p Pool
	for file, n := range map[string]*int64{"nr_hugepages": &p.Total, "free_hugepages": &p.Free, "resv_hugepages": &p.Reserved} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return Pool{}, fmt.Errorf("read pool of pages of %d KiB: %w", size>>10, err)
		}
		if *n, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return Pool{}, fmt.Errorf("read pool of pages of %d KiB: %s: %w", size>>10, file, err)
		}
	}
	return p, nil
}
