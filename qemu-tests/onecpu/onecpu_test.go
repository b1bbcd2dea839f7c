package onecpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStart starts programs, named as QEMU's are, and looks which CPUs they may use.
func TestStart(t *testing.T) {
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "qemu-system-test")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	busy := taken("/proc")
	for range before.Count() {
		cmd := exec.Command(program, "60")
		if err := Start(cmd.Start); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(cmd.Process.Pid, &set); err != nil || set.Count() != 1 {
			t.Errorf("the program may use %d CPUs (%v), want 1", set.Count(), err)
		}
	}
	if len(busy) == 0 {
		for cpu, n := range taken("/proc") {
			if n != 1 {
				t.Errorf("CPU %d has been given %d times, want once", cpu, n)
			}
		}
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("this thread may use %d CPUs afterwards (%v), want %d", after.Count(), err, before.Count())
	}
}

func TestTaken(t *testing.T) {
	proc := t.TempDir()
	for pid, status := range map[string]string{
		"1": "Name:\tinit\nCpus_allowed_list:\t0\n",
		"2": "Name:\tqemu-system-x86\nCpus_allowed_list:\t0\n",
		"3": "Name:\tqemu-system-x86\nCpus_allowed_list:\t0-3\n",
		"4": "Name:\tqemu-system-x86\nCpus_allowed_list:\t2\n",
		"5": "Name:\tqemu-system-x86\nCpus_allowed_list:\t2\n",
	} {
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "status"), []byte(status), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := taken(proc)
	if len(got) != 2 || got[0] != 1 || got[2] != 2 {
		t.Errorf("taken: %v, want CPU 0 once and CPU 2 twice", got)
	}
	var set unix.CPUSet
	for _, c := range []struct {
		cpus string
		want int
	}{{"0 1 2", 1}, {"0 2", 0}, {"2", 2}} {
		set.Zero()
		for f := range strings.FieldsSeq(c.cpus) {
			set.Set(int(f[0] - '0'))
		}
		if cpu := quietest(&set, got); cpu != c.want {
			t.Errorf("quietest of %s: %d, want %d", c.cpus, cpu, c.want)
		}
	}
}
