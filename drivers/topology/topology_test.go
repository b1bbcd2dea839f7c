package topology

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes the files of a recorded sysfs: a line is a path and what is in the file.
func tree(t *testing.T, record string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", record))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for line := range strings.Lines(string(b)) {
		path, text, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "|", "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A server of two sockets, four threads each, and a node of memory alone.
func TestThreeNodes(t *testing.T) {
	h, err := read(tree(t, "three-nodes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{ID: 0, CPUs: []int{0, 2, 4, 6}, Distances: []int{10, 21, 17}, MemoryBytes: 4096 << 20, FreeBytes: 1024 << 20, AvailableBytes: 1792 << 20,
			Pools:   []Pool{{2 << 20, 512, 500}, {1 << 30, 2, 1}},
			Devices: []Device{{"0000:17:00.0", 0x20000, 0x8086, 0x1572}}},
		{ID: 1, CPUs: []int{1, 3, 5, 7}, Distances: []int{21, 10, 28}, MemoryBytes: 2048 << 20, FreeBytes: 512 << 20, AvailableBytes: 512 << 20,
			Devices: []Device{{"0000:b1:00.0", 0x10802, 0x144d, 0xa824}}},
		{ID: 4, Distances: []int{17, 28, 10}, MemoryBytes: 8192 << 20, FreeBytes: 8192 << 20, AvailableBytes: 8192 << 20},
	}
	if d := cmp.Diff(want, h.Nodes); d != "" {
		t.Errorf("nodes (-want +got):\n%s", d)
	}
	wantCPU := CPU{ID: 5, Socket: 1, Core: 0, Node: 1, Siblings: []int{1, 5}, Caches: []Cache{
		{1, "Data", 32 << 10, []int{1, 5}}, {3, "Unified", 22528 << 10, []int{1, 3, 5, 7}}}}
	if len(h.CPUs) != 8 {
		t.Fatalf("%d CPUs, want 8", len(h.CPUs))
	}
	if d := cmp.Diff(wantCPU, h.CPUs[5]); d != "" {
		t.Errorf("CPU 5 (-want +got):\n%s", d)
	}
	if _, ok := h.Node(2); ok {
		t.Error("there is a node 2")
	}
	if n, ok := h.Node(4); !ok || n.MemoryBytes != 8<<30 {
		t.Errorf("node 4 = %+v, %v", n, ok)
	}
}

// This machine has a node with memory, and all CPUs that the kernel lets Go use.
func TestThisMachine(t *testing.T) {
	h, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.CPUs) < runtime.NumCPU() || len(h.Nodes) == 0 {
		t.Fatalf("%d CPUs, %d nodes", len(h.CPUs), len(h.Nodes))
	}
	seen := 0
	for i, n := range h.Nodes {
		seen += len(n.CPUs)
		if len(n.Distances) != len(h.Nodes) || n.Distances[i] != 10 || n.FreeBytes > n.MemoryBytes || n.AvailableBytes < n.FreeBytes {
			t.Errorf("node %+v", n)
		}
	}
	if seen != len(h.CPUs) {
		t.Errorf("%d CPUs in nodes, of %d", seen, len(h.CPUs))
	}
	for _, c := range h.CPUs {
		if c.Node < 0 || len(c.Siblings) == 0 {
			t.Errorf("CPU %+v", c)
		}
	}
}

// A kernel without NUMA has no nodes, and what is no number is told.
func TestOtherTrees(t *testing.T) {
	root := t.TempDir()
	if h, err := read(root); err != nil || len(h.Nodes) != 0 || len(h.CPUs) != 0 {
		t.Errorf("read of nothing = %+v, %v", h, err)
	}
	dir := filepath.Join(root, nodesDir, "node0")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"../online": "x", "cpulist": "3-1", "distance": "near", "meminfo": "Node 0 MemFree: lots kB"} {
		if err := os.WriteFile(filepath.Join(dir, "../online"), []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := read(root); err == nil || h != nil {
			t.Errorf("read with %q in %s = %+v, %v", text, file, h, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLists(t *testing.T) {
	for in, want := range map[string][]int{
		"": nil, "\n": nil, "0": {0}, "0-3,8\n": {0, 1, 2, 3, 8}, "7,9-9": {7, 9},
	} {
		got, err := ParseList(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseList(%q) = %v, %v, want %v", in, got, err, want)
		}
		if again, err := ParseList(FormatList(got)); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("FormatList(%v) = %q", got, FormatList(got))
		}
	}
	for _, in := range []string{"a", "1-", "-1", "3-1", "1,,2", "65536", "0-65535,0-65535", "1 2"} {
		if got, err := ParseList(in); err == nil {
			t.Errorf("ParseList(%q) = %d numbers", in, len(got))
		}
	}
}
