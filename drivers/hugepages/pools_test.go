package hugepages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// put writes the counters of a pool below a folder.
func put(t *testing.T, dir, counters string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(counters) {
		file, n, _ := strings.Cut(word, "=")
		if err := os.WriteFile(filepath.Join(dir, file+"_hugepages"), []byte(n+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSizes(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/kernel/mm/hugepages/hugepages-1048576kB", "nr=1 free=1 resv=0 surplus=0")
	put(t, root+"/kernel/mm/hugepages/hugepages-2048kB", "nr=24 free=9 resv=4 surplus=2")
	put(t, root+"/kernel/mm/hugepages/other", "")
	put(t, root+"/devices/system/node/node0/hugepages/hugepages-2048kB", "nr=16 free=1 surplus=2")
	put(t, root+"/devices/system/node/node10/hugepages/hugepages-2048kB", "nr=3 free=3 surplus=0")
	put(t, root+"/devices/system/node/node2/hugepages/hugepages-2048kB", "nr=5 free=5 surplus=0")
	put(t, root+"/devices/system/node/node0/hugepages/hugepages-1048576kB", "nr=1 free=1 surplus=0")
	got, err := sizes(root)
	want := []Size{
		{Pool: Pool{24, 9, 4}, PageBytes: 2 << 20, Surplus: 2, Nodes: []Node{{0, 16, 1, 2}, {2, 5, 5, 0}, {10, 3, 3, 0}}},
		{Pool: Pool{1, 1, 0}, PageBytes: 1 << 30, Nodes: []Node{{0, 1, 1, 0}}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("sizes (-want +got), %v:\n%s", err, d)
	}
	if n := got[0].Nodes[0].Kept(); n != 14 {
		t.Errorf("%d pages are kept, want 14", n)
	}
	if err := set(root, 2<<20, 2, 7); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(root + "/devices/system/node/node2/hugepages/hugepages-2048kB/nr_hugepages"); string(b) != "7\n" && string(b) != "7" {
		t.Errorf("the kernel is told %q, %v", b, err)
	}
	if err := set(root, 2<<20, 3, 7); err == nil {
		t.Error("a node that there is not has a pool")
	}
	put(t, root+"/kernel/mm/hugepages/hugepages-2048kB", "surplus=many")
	if got, err := sizes(root); err == nil || got != nil {
		t.Errorf("sizes of what is no number = %+v, %v", got, err)
	}
	if got, err := sizes(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("sizes of a kernel without = %+v, %v", got, err)
	}
}

// The pools of this machine add up.
func TestThisMachine(t *testing.T) {
	all, err := Sizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		sum := int64(0)
		for _, n := range s.Nodes {
			sum += n.Total
		}
		if len(s.Nodes) > 0 && sum != s.Total {
			t.Errorf("%s: nodes have %d pages", fmt.Sprintf("%+v", s), sum)
		}
	}
}
