package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// checked is what `ashlarctl host check -o json` says of the result of each check.
func (h *host) checked(t testing.TB) map[string]string {
	t.Helper()
	var out struct {
		Findings []struct{ Name, Result, Detail, Advice string }
	}
	if err := json.Unmarshal([]byte(h.mustCtl(t, "host", "check", "-o", "json")), &out); err != nil {
		t.Fatal(err)
	}
	results := make(map[string]string)
	for _, f := range out.Findings {
		results[f.Name] = f.Result
		if f.Detail == "" || (f.Result == "RESULT_PASSED") != (f.Advice == "") {
			t.Errorf("%+v: want a detail, and an advice where it has not passed", f)
		}
	}
	return results
}

// TestCheckOfTheHost looks at the lab's host, of which it is known what is weak, and has it
// refuse to start guests for that.
func TestCheckOfTheHost(t *testing.T) {
	h := newHost(t, options{edit: func(doc string) string {
		return doc + "\nsecurity:\n  require: [secure-boot, swap]\n"
	}})
	got := h.checked(t)
	for name, want := range map[string]string{
		"ksm": "RESULT_PASSED", "swap": "RESULT_PASSED", "aslr": "RESULT_PASSED", "smt": "RESULT_PASSED", "lockdown": "RESULT_PASSED", "iommu": "RESULT_PASSED",
		"secure-boot":         "RESULT_WEAK", // the lab's firmware has no keys
		"kernel-command-line": "RESULT_WEAK", // it is the rescue variant
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %s", name, got[name], want)
		}
	}
	if text := fmt.Sprint(got); !strings.Contains(text, "vulnerabilities/spectre_v2") {
		t.Errorf("nothing of the processor's vulnerabilities in %s", text)
	}
	if table := h.mustCtl(t, "host", "check"); !strings.Contains(table, "Virtual machines are not started") {
		t.Errorf("the table does not say that nothing is started:\n%s", table)
	}
	_, err := os.Stat(filepath.Join(top, "out/no-microcode"))
	built := err != nil // with microcode
	if table := h.mustCtl(t, "host", "check"); !strings.Contains(table, "The image has ") || strings.Contains(table, "The image has no microcode.") == built {
		t.Errorf("the image was built with microcode: %v; the table says:\n%s", built, table)
	}
	h.create(t, "kept-back", testVM(""))
	r, err := h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/kept-back"}))
	if err == nil {
		err = h.done(t, r.Msg)
	}
	if err == nil || !strings.Contains(err.Error(), "secure-boot") || strings.Contains(err.Error(), "swap") {
		t.Errorf("start gives %v, want a refusal for the want of secure-boot", err)
	}
	res, err := h.Hosts.GetHost(within(t, time.Minute), connect.NewRequest(&v1.GetHostRequest{}))
	if err != nil || !strings.Contains(fmt.Sprint(res.Msg.GetProblems()), "secure-boot") {
		t.Errorf("problems are %q, %v, want one about it", res.Msg.GetProblems(), err)
	}
}

// TestDomainsAsConfined reads from the kernel what a VMM, control and core are held by.
func TestDomainsAsConfined(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "confined", testVM(""))
	t.Cleanup(func() { h.remove(t, "confined") })
	h.boot(t, "confined")
	h.console(t, "confined").expect("TESTGUEST ready", patience)
	ours := h.shell(t, "ls -l /proc/1/ns")
	namespace := func(list, name string) string {
		_, rest, _ := strings.Cut(list, " "+name+" -> ")
		id, _, _ := strings.Cut(rest, "]")
		return strings.TrimSpace(id)
	}
	for program, want := range map[string][]string{
		"ashlar-vmm": {"Uid:\t100", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
			"NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t1"},
		"ashlar-control": {"Uid:\t900\t900\t900\t900", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
			"NoNewPrivs:\t1", "Seccomp:\t2"},
		"ashlar-netd": {"Uid:\t902\t902\t902\t902", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"},
	} {
		pids := h.pids(t, program)
		if len(pids) == 0 {
			t.Errorf("no %s runs", program)
			continue
		}
		status := h.shell(t, "cat /proc/"+pids[0]+"/status")
		for _, w := range want {
			if !strings.Contains(status, w) {
				t.Errorf("%s lacks %q:\n%s", program, w, status)
			}
		}
		theirs := h.shell(t, "ls -l /proc/"+pids[0]+"/ns")
		for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
			if id := namespace(theirs, name); id == "" || id == namespace(ours, name) {
				t.Errorf("%s is in the %s namespace %q of the host:\n%s\n%s", program, name, id, theirs, ours)
			}
		}
		if m := h.shell(t, "cat /proc/"+pids[0]+"/uid_map"); len(strings.Fields(m)) != 3 || strings.Fields(m)[0] != strings.Fields(m)[1] || strings.Fields(m)[2] != "1" {
			t.Errorf("%s knows the users %q, want itself alone", program, m)
		}
		limits := h.shell(t, "cat /proc/"+pids[0]+"/limits")
		if core := "Max core file size        0                    0"; !strings.Contains(limits, core) && program != "ashlar-control" {
			t.Errorf("%s lacks %q:\n%s", program, core, limits)
		}
	}
	if core := h.shell(t, "cat /proc/"+h.pids(t, "ashlar-core")[0]+"/net/tcp"); strings.Count(core, "\n") > 2 {
		t.Logf("TCP sockets of the host's namespace:\n%s", core)
	}
	if got := h.shell(t, "cat /sys/fs/cgroup/guests/*/memory.max /sys/fs/cgroup/guests/*/pids.max /sys/fs/cgroup/guests/*/cpu.max"); strings.Contains(got, "max ") || strings.Contains(got, "max\n") {
		t.Errorf("a guest's control group is without a bound: %q", got)
	}
}
