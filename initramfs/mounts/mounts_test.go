package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "good"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Apply(root, []Setting{{"missing/one", "1"}, {"good", "2"}})
	if err == nil || !strings.Contains(err.Error(), `set missing/one to "1"`) {
		t.Errorf("Apply = %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "good")); err != nil || string(b) != "2" {
		t.Errorf("after a failure the next setting is %q, %v", b, err)
	}
}

// TestCgroups has files where the kernel would have made them.
func TestCgroups(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "guests")
	for _, file := range []string{root + "/cgroup.subtree_control", group + "/cgroup.subtree_control", group + "/cpu.weight"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	groups := []Group{{Path: group, Settings: []Setting{{"cpu.weight", "100"}}, Delegates: true}}
	if err := Cgroups(root, groups); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"/cgroup.subtree_control": "+hugetlb", "/guests/cgroup.subtree_control": "+hugetlb", "/guests/cpu.weight": "100"} {
		if b, err := os.ReadFile(root + file); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v, want %q", file, b, err, want)
		}
	}
	if err := Cgroups(root, []Group{{Path: filepath.Join(root, "x"), Settings: []Setting{{"memory.min", "1M"}}}}); err != nil {
		t.Errorf("a new group: %v", err) // files appear by being written here
	}
}

func TestAllGoesOn(t *testing.T) {
	dir := t.TempDir()
	err := All([]Mount{
		{Type: "nosuchfs", Target: filepath.Join(dir, "a")},
		{Type: "nosuchfs", Target: filepath.Join(dir, "b"), Optional: true},
		{Type: "nosuchfs", Target: filepath.Join(dir, "c")},
	})
	if err == nil || strings.Count(err.Error(), "nosuchfs") != 2 || strings.Contains(err.Error(), "/b") {
		t.Errorf("All = %v, want the two that are needed", err)
	}
}
