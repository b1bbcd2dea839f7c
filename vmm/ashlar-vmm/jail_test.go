package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// What a taken-over VMM has: no user of the host's but its own, no capability, no path, no
// new privilege, a filter, and namespaces that nobody else is in.
func TestJail(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Spin(), nil); err != nil {
		t.Fatal(err)
	}
	of := func(file string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", v.cmd.Process.Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	status := of("status")
	for _, want := range []string{
		"Uid:\t100000\t100000\t100000\t100000\n", "Gid:\t100000\t100000\t100000\t100000\n", "Groups:\t \n",
		"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
		"CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		if got := strings.Join(strings.Fields(of(file)), " "); got != "100000 100000 1" {
			t.Errorf("%s = %q, want its own alone", file, got)
		}
	}
	limits := strings.Join(strings.Fields(of("limits")), " ")
	for _, want := range []string{
		"Max core file size 0 0 bytes", "Max open files 1024 1024 files", "Max locked memory 0 0 bytes",
		"Max msgqueue size 0 0 bytes", "Max nice priority 0 0", "Max realtime priority 0 0",
		fmt.Sprintf("Max processes %d %[1]d processes", protocol.Threads(2)),
	} {
		if !strings.Contains(limits, want) {
			t.Errorf("limits lack %q: %s", want, limits)
		}
	}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", v.cmd.Process.Pid, name))
		if err != nil {
			t.Fatal(err)
		}
		if ours, err := os.Readlink("/proc/self/ns/" + name); err != nil || ours == theirs {
			t.Errorf("namespace %s is %s, %v, ours", name, ours, err)
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", v.cmd.Process.Pid))
	if err != nil || len(entries) != 0 {
		t.Errorf("root = %v, %v, want it empty", entries, err)
	}
	v.ask(protocol.Stop)
	v.ended(0)
}

// A guest that halts for good ends: its VMM finds out from within the jail.
func TestHaltedInJail(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Halt(), nil); err != nil {
		t.Fatal(err)
	}
	if got := v.ended(0); got.Reason != protocol.Halted {
		t.Errorf("result = %+v, want halted", got)
	}
}
