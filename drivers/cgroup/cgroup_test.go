//go:build roottest

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const root = "/sys/fs/cgroup"

func TestGroup(t *testing.T) {
	parent := filepath.Join(root, "test-guests")
	if err := Enable(root, parent); err != nil {
		t.Fatalf("Enable: %v", err)
	}
	if err := Enable(root, parent); err != nil {
		t.Fatalf("second Enable: %v", err)
	}
	defer os.Remove(parent)
	dir := filepath.Join(parent, "a")
	g, err := Create(dir, Limits{MemoryMax: 64 << 20, PIDsMax: 32, CPUWeight: 50, CPUMax: 3, Hugetlb: map[uint64]int64{2 << 20: 32 << 20}})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for file, want := range map[string]string{"memory.max": "67108864\n", "pids.max": "32\n", "cpu.weight": "50\n", "cpu.max": "300000 100000\n", "memory.oom.group": "1\n",
		"hugetlb.2MB.max": "33554432\n", "hugetlb.2MB.rsvd.max": "0\n", "hugetlb.1GB.max": "0\n", "hugetlb.1GB.rsvd.max": "0\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", file, got, err, want)
		}
	}
	if err := g.SetMemoryMax(128 << 20); err != nil {
		t.Errorf("SetMemoryMax: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "memory.max")); err != nil || string(got) != "134217728\n" {
		t.Errorf("memory.max = %q, %v after SetMemoryMax", got, err)
	}
	if _, err := Create(dir, Limits{}); err == nil {
		t.Error("Create of a group that exists: no error")
	}
	cmd := sleeper(t, g)
	if p, err := g.Populated(); err != nil || !p {
		t.Errorf("Populated = %v, %v; want true", p, err)
	}
	if n, err := g.MemoryCurrent(); err != nil || n <= 0 {
		t.Errorf("MemoryCurrent = %d, %v; want some", n, err)
	}
	go cmd.Wait()
	if err := g.Remove(5 * time.Second); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	if err := g.Remove(time.Second); err != nil {
		t.Errorf("Remove of a group that is gone: %v", err)
	}
	if p, err := g.Populated(); err != nil || p {
		t.Errorf("Populated after Remove = %v, %v; want false", p, err)
	}
}

func TestCreateLeavesNothing(t *testing.T) {
	parent := filepath.Join(root, "test-guests")
	if err := Enable(root, parent); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(parent)
	dir := filepath.Join(parent, "b")
	if _, err := Create(dir, Limits{CPUWeight: 1 << 40}); err == nil {
		t.Error("Create with a weight out of range: no error")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left behind", dir)
	}
}

// sleeper starts this program again in g, as something to kill.
func sleeper(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	f, err := g.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"ASHLAR_CGROUP_SLEEP=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestMain(m *testing.M) {
	if os.Getenv("ASHLAR_CGROUP_SLEEP") != "" {
		time.Sleep(time.Minute)
		return
	}
	if order := os.Getenv(writeVariable); order != "" {
		if err := writes(order); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
