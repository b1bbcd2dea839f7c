package hostcheck

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// sound is a host on which nothing is weak: its files and what they say.
var sound = map[string]string{
	cpus + "/vulnerabilities/meltdown":           "Not affected\n",
	cpus + "/vulnerabilities/spectre_v2":         "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling; BHI: BHI_DIS_S\n",
	cpus + "/smt/active":                         "0\n",
	cpus + "/cpu0/microcode/version":             "0xb000040\n",
	cpus + "/cpu1/microcode/version":             "0xb000040\n",
	cpus + "/cpu0/microcode/processor_flags":     "0x80\n",
	"proc/cpuinfo":                               xeon,
	"microcode/contents":                         "source intel-microcode 1\nGenuineIntel 000406f1 000000ef 0b000040\nAuthenticAMD 00800f12 00000000 0800126f\n",
	"sys/kernel/iommu_groups/0/type":             "DMA\n",
	"proc/interrupts":                            " 24: 0 IR-PCI-MSI-0000:00:1c.0 0-edge\n",
	secureBootFile:                               "\x06\x00\x00\x00\x01",
	"sys/kernel/security/lockdown":               "none [integrity] confidentiality\n",
	"proc/cmdline":                               "console=ttyS0 quiet\n",
	"proc/swaps":                                 "Filename Type Size Used Priority\n",
	"proc/sys/kernel/randomize_va_space":         "2\n",
	"sys/kernel/mm/transparent_hugepage/enabled": "madvise\n",
}

func read(require []string, change map[string]string) hostcall.HostCheckResult {
	files := maps.Clone(sound)
	maps.Copy(files, change)
	root := fstest.MapFS{}
	for name, text := range files {
		if text != "gone" {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return Read(root, require, true)
}

func find(t *testing.T, r hostcall.HostCheckResult, name string) hostcall.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("there is no check %s in %+v", name, r)
	return hostcall.Finding{}
}

// On a host without a fault everything passes, and each check that can be required is made.
func TestSound(t *testing.T) {
	r := read(layout.Checks(), nil)
	if r.Refused || Refusal(r) != nil {
		t.Errorf("refused: %v", Refusal(r))
	}
	for _, f := range r.Findings {
		if f.Result != hostcall.Passed || f.Advice != "" || !f.Required {
			t.Errorf("%+v", f)
		}
	}
	for _, name := range layout.Checks() {
		if name == layout.CheckVulnerabilities {
			name += "/spectre_v2"
		}
		find(t, r, name)
	}
}

func TestWeak(t *testing.T) {
	for _, tt := range []struct {
		name   string
		check  string
		change map[string]string
		result hostcall.CheckResult
	}{
		{"vulnerable", "vulnerabilities/meltdown", map[string]string{cpus + "/vulnerabilities/meltdown": "Vulnerable"}, hostcall.Weak},
		{"no microcode", "vulnerabilities/mds", map[string]string{cpus + "/vulnerabilities/mds": "Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable"}, hostcall.Weak},
		{"siblings", "vulnerabilities/mds", map[string]string{cpus + "/vulnerabilities/mds": "Mitigation: Clear CPU buffers; SMT vulnerable"}, hostcall.Weak},
		{"a part", "vulnerabilities/spectre_v2", map[string]string{cpus + "/vulnerabilities/spectre_v2": "Mitigation: Retpolines; BHI: Vulnerable"}, hostcall.Weak},
		{"a guest", "vulnerabilities/mds", map[string]string{cpus + "/vulnerabilities/mds": "Mitigation: Clear CPU buffers; SMT Host state unknown"}, hostcall.Unknown},
		{"unknown", "vulnerabilities/srbds", map[string]string{cpus + "/vulnerabilities/srbds": "Unknown: Dependent on hypervisor status"}, hostcall.Unknown},
		{"words of tomorrow", "vulnerabilities/new", map[string]string{cpus + "/vulnerabilities/new": "Perhaps"}, hostcall.Weak},
		{"no vulnerabilities", "vulnerabilities", map[string]string{cpus + "/vulnerabilities/meltdown": "gone", cpus + "/vulnerabilities/spectre_v2": "gone"}, hostcall.Unknown},
		{"smt", "smt", map[string]string{cpus + "/smt/active": "1"}, hostcall.Weak},
		{"microcode differs", "microcode", map[string]string{cpus + "/cpu1/microcode/version": "0x1"}, hostcall.Weak},
		{"microcode is not loaded", "microcode", map[string]string{cpus + "/cpu0/microcode/version": "0xb00003f", cpus + "/cpu1/microcode/version": "0xb00003f"}, hostcall.Weak},
		{"microcode is kept off", "kernel-command-line", map[string]string{"proc/cmdline": "dis_ucode_ldr"}, hostcall.Weak},
		{"no microcode", "microcode", map[string]string{cpus + "/cpu0/microcode/version": "gone", cpus + "/cpu1/microcode/version": "gone"}, hostcall.Unknown},
		{"no IOMMU", "iommu", map[string]string{"sys/kernel/iommu_groups/0/type": "gone"}, hostcall.Weak},
		{"no remapping", "interrupt-remapping", map[string]string{"proc/interrupts": " 24: 0 PCI-MSI 0-edge"}, hostcall.Weak},
		{"no interrupts", "interrupt-remapping", map[string]string{"proc/interrupts": "gone"}, hostcall.Unknown},
		{"no secure boot", "secure-boot", map[string]string{secureBootFile: "\x06\x00\x00\x00\x00"}, hostcall.Weak},
		{"no UEFI", "secure-boot", map[string]string{secureBootFile: "gone"}, hostcall.Weak},
		{"no lockdown", "lockdown", map[string]string{"sys/kernel/security/lockdown": "[none] integrity confidentiality"}, hostcall.Weak},
		{"no LSM", "lockdown", map[string]string{"sys/kernel/security/lockdown": "gone"}, hostcall.Weak},
		{"mitigations", "kernel-command-line", map[string]string{"proc/cmdline": "quiet mitigations=off"}, hostcall.Weak},
		{"rescue", "kernel-command-line", map[string]string{"proc/cmdline": "ashlar.rescue=ttyS1"}, hostcall.Weak},
		{"ksm", "ksm", map[string]string{"sys/kernel/mm/ksm/run": "1"}, hostcall.Weak},
		{"ksm that rests", "ksm", map[string]string{"sys/kernel/mm/ksm/run": "0"}, hostcall.Passed},
		{"swap", "swap", map[string]string{"proc/swaps": "Filename Type\n/dev/sda2 partition"}, hostcall.Weak},
		{"no swap", "swap", map[string]string{"proc/swaps": "gone"}, hostcall.Passed},
		{"addresses", "aslr", map[string]string{"proc/sys/kernel/randomize_va_space": "1"}, hostcall.Weak},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := find(t, read(nil, tt.change), tt.check)
			if f.Result != tt.result || f.Required || f.Detail == "" || (f.Advice == "") != (f.Result == hostcall.Passed) {
				t.Errorf("%+v, want %s", f, tt.result)
			}
			for _, require := range []string{tt.check, strings.Split(tt.check, "/")[0]} {
				r := read([]string{require}, tt.change)
				err := Refusal(r)
				var e *hostcall.Error
				if want := tt.result != hostcall.Passed; r.Refused != want || (err != nil) != want ||
					want && (!errors.As(err, &e) || e.Code != hostcall.FailedPrecondition || !strings.Contains(e.Message, tt.check)) {
					t.Errorf("required as %s: refused %v, %v", require, r.Refused, err)
				}
			}
		})
	}
	if f := Read(fstest.MapFS{cpus + "/smt/active": {Data: []byte("1")}}, nil, false); find(t, f, "core-scheduling").Result != hostcall.Weak {
		t.Errorf("SMT without core scheduling: %+v", f)
	}
}

// What a host says is bounded and printable, whatever it is.
func TestOdd(t *testing.T) {
	f := find(t, read(nil, map[string]string{cpus + "/vulnerabilities/odd": "Vulnerable\x1b[2J" + strings.Repeat("x", 4096)}), "vulnerabilities/odd")
	if len(f.Detail) > maxDetail || strings.Contains(f.Detail, "\x1b") {
		t.Errorf("%q", f.Detail)
	}
	for _, f := range Read(fstest.MapFS{}, layout.Checks(), false).Findings {
		if f.Result == "" || f.Detail == "" {
			t.Errorf("of a host without files: %+v", f)
		}
	}
}

// This machine can be read.
func TestRead(t *testing.T) {
	if r := Read(os.DirFS("/"), nil, true); len(r.Findings) < len(layout.Checks()) {
		t.Errorf("%+v", r)
	}
}
