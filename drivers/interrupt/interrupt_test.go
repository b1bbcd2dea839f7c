package interrupt

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// tree makes a folder like /proc/irq, with interrupts that go to CPUs and have a handler.
func tree(t *testing.T, cpus, handlers map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "default_smp_affinity"), "ff\n")
	for n, list := range cpus {
		write(filepath.Join(dir, n, "smp_affinity_list"), list+"\n")
	}
	for n, name := range handlers {
		if err := os.MkdirAll(filepath.Join(dir, n, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// are are the CPUs that interrupts go to, and new ones.
func are(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := make(map[string]string)
	for n := range want {
		name := filepath.Join(dir, n, "smp_affinity_list")
		if n == "default" {
			name = filepath.Join(dir, "default_smp_affinity")
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got[n] = strings.TrimSpace(string(b))
	}
	if !maps.Equal(got, want) {
		t.Errorf("interrupts go to %v, want %v", got, want)
	}
}

func open(t *testing.T, dir, notes string) *Steering {
	t.Helper()
	s, err := New(dir, notes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keep(t *testing.T, s *Steering, away []int, devices ...Device) {
	t.Helper()
	if stuck, err := s.Keep([]int{0, 1, 2, 3, 4, 5, 6, 7}, away, devices); err != nil || stuck != 0 {
		t.Errorf("Keep: %d stuck, %v", stuck, err)
	}
}

func TestKeep(t *testing.T) {
	before := map[string]string{"1": "0-7", "9": "2", "24": "2-3", "30": "5", "default": "ff"}
	dir := tree(t, map[string]string{"1": "0-7", "9": "2", "24": "2-3", "30": "5"}, map[string]string{"30": "vfio-msix[0](0000:01:10.0)", "9": "acpi"})
	notes := filepath.Join(t.TempDir(), "irqs")
	s := open(t, dir, notes)
	keep(t, s, nil)
	are(t, dir, map[string]string{"1": "0-7", "9": "2", "24": "2-3", "30": "5", "default": "000000ff"})
	keep(t, s, []int{2, 3})
	are(t, dir, map[string]string{"1": "0-1,4-7", "9": "0-1,4-7", "24": "0-1,4-7", "30": "5", "default": "000000f3"})
	// A program that is started again knows where they were.
	s = open(t, dir, notes)
	keep(t, s, []int{3}, Device{"0000:01:10.0", []int{1}})
	are(t, dir, map[string]string{"1": "0-2,4-7", "9": "2", "24": "2", "30": "1", "default": "000000f7"})
	s = open(t, dir, notes)
	keep(t, s, nil)
	before["default"] = "000000ff"
	are(t, dir, before)
	if b, err := os.ReadFile(notes); err != nil || string(b) != "{}" {
		t.Errorf("notes = %s, %v at the end", b, err)
	}
}

// An interrupt that cannot be moved is counted, and forgotten.
func TestStuck(t *testing.T) {
	dir := tree(t, map[string]string{"1": "0-7"}, nil)
	name := filepath.Join(dir, "1", "smp_affinity_list")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	// A number that nobody can write.
	const fixed = "/proc/sys/kernel/cap_last_cap"
	b, err := os.ReadFile(fixed)
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fixed, name); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, filepath.Join(t.TempDir(), "irqs"))
	stuck, err := s.Keep([]int{0, 1}, []int{cpu}, nil)
	if err != nil || stuck != 1 || len(s.moved) != 0 {
		t.Errorf("Keep: %d stuck, %v; moved %v", stuck, err, s.moved)
	}
}

func TestMask(t *testing.T) {
	for want, cpus := range map[string][]int{"00000005": {0, 2}, "00000002,00000001": {0, 33}, "80000000,00000000,00000000": {95}} {
		if got := mask(cpus); got != want {
			t.Errorf("mask(%v) = %s, want %s", cpus, got, want)
		}
	}
}

func TestNotesAreDamaged(t *testing.T) {
	notes := filepath.Join(t.TempDir(), "irqs")
	if err := os.WriteFile(notes, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.TempDir(), notes); err == nil {
		t.Error("no error")
	}
}
