package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryOnNodes is how many bytes of shared memory, that of memfds, is charged to the
// group by the NUMA nodes that it lies on (memory.numa_stat).
func (g *Group) MemoryOnNodes() (map[int]int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.numa_stat"))
	if err != nil {
		return nil, fmt.Errorf("read memory on NUMA nodes: %w", err)
	}
	n, err := parseNodes(string(b), "shmem")
	if err != nil {
		return nil, fmt.Errorf("read memory on NUMA nodes of %s: %w", g.dir, err)
	}
	return n, nil
}

// parseNodes reads the line `name N0=4096 N1=0` of text.
func parseNodes(text, name string) (map[int]int64, error) {
	out := make(map[int]int64)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != name {
			continue
		}
		for _, word := range f[1:] {
			node, bytes, _ := strings.Cut(strings.TrimPrefix(word, "N"), "=")
			id, err := strconv.Atoi(node)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", word, err)
			}
			if out[id], err = strconv.ParseInt(bytes, 10, 64); err != nil {
				return nil, fmt.Errorf("%q: %w", word, err)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("there is no line %s", name)
}
