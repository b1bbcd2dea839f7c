//go:build roottest

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// read is what is in a file of a group below the root.
func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Threads of a process run in parts of its group; the CPUs of one of them are taken from all
// others, and given back with the group.
func TestCPUsSplit(t *testing.T) {
	parent := filepath.Join(root, "test-guests")
	if err := Enable(root, parent); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(parent)
	beside, err := Create(filepath.Join(parent, "beside"), Limits{CPUs: []int{2, 3, 4, 5}})
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Remove(time.Second)
	if err := Open(parent).ShareCPUs([]int{0, 1, 2, 3, 4, 5, 6, 7}, []int{2, 3, 4, 5, 6, 7}); err != nil {
		t.Fatal(err)
	}
	var groups []*Group
	for i, cpus := range [][]int{{2, 3}, {6, 7}} {
		g, err := Create(filepath.Join(parent, string(rune('a'+i))), Limits{MemoryMax: 64 << 20, CPUs: append([]int{4, 5}, cpus...), Nodes: []int{1}})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Remove(time.Second)
		if err := g.Split(Part{Name: "vcpus", CPUs: cpus, Exclusive: true}, Part{Name: "emulation", CPUs: []int{4, 5}}); err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	cmd := sleeper(t, groups[0].Part("emulation"))
	f, err := groups[0].Part("vcpus").Threads()
	if err != nil {
		t.Fatal(err)
	}
	// This thread is of a process in another group.
	if _, err := f.WriteString("0"); err == nil {
		t.Error("a thread of a process of another group was moved")
	}
	f.Close()
	for _, tt := range []struct{ file, want string }{
		{"cpuset.cpus.effective", "0-1,4-5"},
		{"test-guests/cpuset.cpus.effective", "0-1,4-5"},
		{"test-guests/beside/cpuset.cpus.effective", "4-5"},
		{"test-guests/a/vcpus/cpuset.cpus.effective", "2-3"},
		{"test-guests/a/vcpus/cpuset.cpus.partition", "isolated"},
		{"test-guests/b/vcpus/cpuset.cpus.effective", "6-7"},
		{"test-guests/a/emulation/cpuset.cpus.effective", "4-5"},
		{"test-guests/a/emulation/cpuset.mems.effective", "1"},
		{"test-guests/a/cgroup.type", "domain threaded"},
	} {
		if got := read(t, tt.file); got != tt.want {
			t.Errorf("%s is %q, want %q", tt.file, got, tt.want)
		}
	}
	if status := read(t, "../../../proc/self/status"); !strings.Contains(status, "Cpus_allowed_list:\t0-1,4-5\n") {
		t.Errorf("this process may run elsewhere than on what is left:\n%s", status)
	}
	if err := groups[1].Split(Part{Name: "more", CPUs: []int{2}, Exclusive: true}); err == nil {
		t.Error("CPUs that are one's alone were given to another")
	}
	go cmd.Wait()
	for _, g := range groups {
		if err := g.Remove(5 * time.Second); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, "test-guests/cpuset.cpus.effective"); got != "0-7" {
		t.Errorf("the CPUs left are %s when the groups are gone, want 0-7", got)
	}
}
