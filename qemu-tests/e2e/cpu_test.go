package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// files are where the small guest's kernel and initramfs lie on the host: an image's
// file is told by its size.
func (h *host) files(t testing.TB) (kernel, initramfs string) {
	t.Helper()
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	find := func(path string) string {
		i, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(h.shell(t, "wc -c /data/images/*")) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == strconv.FormatInt(i.Size(), 10) {
				return f[1]
			}
		}
		t.Fatalf("the host has no image of the %d bytes of %s", i.Size(), path)
		return ""
	}
	return find(filepath.Join(top, "out/guest-bzImage")), find(testInitramfs())
}

// bare runs the small guest on the host without core, types what say has a line at a
// time, then poweroff, and returns all that was printed.
func (h *host) bare(t testing.TB, options string, say ...string) string {
	t.Helper()
	kernel, initramfs := h.files(t)
	const out = "/tmp/bare.out"
	typed := "until grep -q TESTGUEST " + out + "; do sleep 1; done; "
	for _, s := range append(say, "poweroff") {
		typed += "echo " + s + "; sleep 1; "
	}
	h.shell(t, ": > "+out)
	h.shell(t, fmt.Sprintf("{ (%s) | ashlar-vmm run --kernel %s --initramfs %s --cmdline 'console=ttyS0 quiet' %s >> %s 2>&1 & }",
		typed, kernel, initramfs, options, out))
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		text := h.shell(t, "cat "+out)
		if strings.Contains(text, "ashlar-vmm: ") {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guest does not end; it printed:\n%s", text)
		}
	}
}

// answer is what follows `OK command` in text.
func answer(t testing.TB, text, command string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "OK "+command+" ")
	if !ok {
		t.Fatalf("no answer to %s in:\n%s", command, text)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// arranged is what the guest's command topology says of such a machine.
func arranged(sockets, cores, threads int) string {
	var out []string
	for i := range sockets * cores * threads {
		siblings := strconv.Itoa(i)
		if threads > 1 {
			siblings = fmt.Sprintf("%d-%d", i-i%threads, i-i%threads+threads-1)
		}
		out = append(out, fmt.Sprintf("%d:%d:%s", i/threads/cores, i/threads%cores, siblings))
	}
	return strings.Join(out, " ")
}

func TestSixteenProcessors(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("")
	vm.Cpus, vm.MemoryBytes = 16, 256<<20
	vm.Processor = &v1.Processor{Model: "x86-64-v3", Sockets: 2, Threads: 2, HaltPoll: durationpb.New(0)}
	h.create(t, "sixteen", vm)
	t.Cleanup(func() { h.remove(t, "sixteen") })
	h.boot(t, "sixteen")
	c := h.console(t, "sixteen")
	if line := c.expect("TESTGUEST ready", patience); !strings.Contains(line, "cpus=16 ") {
		t.Errorf("the guest says %q, want 16 CPUs", line)
	}
	if got := c.ask("topology"); got != arranged(2, 4, 2) {
		t.Errorf("topology = %s, want 2 sockets of 4 cores of 2 threads", got)
	}
	// One pair of queues per processor, at most 8.
	if got := c.ask("read /proc/interrupts"); !strings.Contains(got, "-input.7 ") || !strings.Contains(got, "-output.7 ") || strings.Contains(got, "-input.8 ") {
		t.Errorf("interrupts, want those of 8 pairs of queues:\n%s", got)
	}
	t.Logf("memory of the VMM and its guest:\n%s", h.shell(t, "grep kernel /sys/fs/cgroup/guests/*/memory.stat"))
}

func TestProcessorsAsArranged(t *testing.T) {
	h := sharedHost(t)
	for _, s := range [][3]int{{2, 2, 2}, {2, 3, 2}, {4, 1, 1}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			text := h.bare(t, fmt.Sprintf("--cpus %d --cpu sockets=%d,threads=%d", s[0]*s[1]*s[2], s[0], s[2]), "topology")
			if got, want := answer(t, text, "topology"), arranged(s[0], s[1], s[2]); got != want {
				t.Errorf("topology = %s, want %s", got, want)
			}
		})
	}
}

func TestProcessorModels(t *testing.T) {
	h := sharedHost(t)
	flags := func(t *testing.T, text string) map[string]bool {
		t.Helper()
		_, after, _ := strings.Cut(answer(t, text, "read"), "flags : ")
		list, _, _ := strings.Cut(after, " bugs :")
		out := make(map[string]bool)
		for f := range strings.FieldsSeq(list) {
			out[f] = true
		}
		return out
	}
	for model, want := range map[string]struct{ has, lacks string }{
		"host":      {"avx2 sha_ni hypervisor", "svm vmx"},
		"x86-64-v2": {"sse4_2 popcnt cx16 hypervisor x2apic", "avx xsave aes sha_ni bmi1"},
		"x86-64-v3": {"avx2 fma bmi2 movbe aes xsaveopt hypervisor", "sha_ni clzero rdseed smap svm"},
	} {
		t.Run(model, func(t *testing.T) {
			got := flags(t, h.bare(t, "--cpu "+model, "read /proc/cpuinfo"))
			for f := range strings.FieldsSeq(want.has) {
				if !got[f] {
					t.Errorf("no %s among %v", f, got)
				}
			}
			for f := range strings.FieldsSeq(want.lacks) {
				if got[f] {
					t.Errorf("%s among %v", f, got)
				}
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		if text := h.bare(t, "--cpu x86-64-v4"); !strings.Contains(text, "cpu.model: ") || !strings.Contains(text, "avx512f") {
			t.Errorf("ashlar-vmm says %q, want it to name avx512f", text)
		}
	})
	t.Run("Hyper-V", func(t *testing.T) {
		text := h.bare(t, "--cpus 2 --cpu hyperv,poll=0s", "cpus", "read /sys/devices/system/clocksource/clocksource0/available_clocksource")
		if answer(t, text, "cpus") != "2" || !strings.Contains(answer(t, text, "read"), "kvm-clock") {
			t.Errorf("the guest printed:\n%s", text)
		}
	})
}
