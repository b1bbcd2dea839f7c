// Package hostcheck looks for what makes a host weaker than it could be: processors with
// known holes, hardware and settings that are missing. It reads what the kernel says of
// itself: sysfs and proc (Documentation/ABI/testing/sysfs-devices-system-cpu,
// Documentation/admin-guide/hw-vuln, admin-guide/mm/ksm.rst, proc(5)).
package hostcheck

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// maxDetail bounds what is told of one check, in bytes.
const maxDetail = 300

// A checker looks at one host.
type checker struct {
	root     fs.FS
	findings []hostcall.Finding
}

// Read makes all checks on the host whose files are root's, "/" being ".". Of those that
// require names none may be weak or unknown: Check.Refused is what keeps guests from starting.
// coreScheduling tells whether the kernel can keep others off a core (prctl(2), PR_SCHED_CORE).
func Read(root fs.FS, require []string, coreScheduling bool) hostcall.HostCheckResult {
	c := &checker{root: root}
	c.vulnerabilities()
	c.smt(coreScheduling)
	c.microcode()
	c.iommu()
	c.secureBoot()
	c.lockdown()
	c.commandLine()
	c.ksm()
	c.swap()
	c.aslr()
	out := hostcall.HostCheckResult{Findings: c.findings}
	for i := range out.Findings {
		f := &out.Findings[i]
		f.Required = required(require, f.Name)
		out.Refused = out.Refused || f.Required && f.Result != hostcall.Passed
	}
	return out
}

// required tells whether a check is among names, by its own name or that of its kind.
func required(names []string, name string) bool {
	kind, _, _ := strings.Cut(name, "/")
	return slices.Contains(names, name) || slices.Contains(names, kind)
}

// Refusal is why guests are not started; nil where they are.
func Refusal(r hostcall.HostCheckResult) error {
	var failed []string
	for _, f := range r.Findings {
		if f.Required && f.Result != hostcall.Passed {
			failed = append(failed, f.Name)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: fmt.Sprintf(
		"The host starts no guests: its configuration (security.require) wants more than it has: %.600s. `ashlarctl host check` says what to do.",
		strings.Join(failed, ", "))}
}

func (c *checker) add(name string, result hostcall.CheckResult, detail, advice string) {
	if result == hostcall.Passed {
		advice = ""
	}
	printable := func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}
	detail = strings.Map(printable, detail)
	c.findings = append(c.findings, hostcall.Finding{Name: name, Result: result, Detail: detail[:min(len(detail), maxDetail)], Advice: advice})
}

// when adds a check that has passed where ok holds, and else is weak.
func (c *checker) when(ok bool, name, good, bad, advice string) {
	if ok {
		c.add(name, hostcall.Passed, good, "")
		return
	}
	c.add(name, hostcall.Weak, bad, advice)
}

// text is what a file says, in one line; ok tells whether it is there.
func (c *checker) text(name string) (text string, ok bool) {
	b, err := fs.ReadFile(c.root, name)
	return strings.TrimSpace(string(b)), err == nil
}

func (c *checker) swap() {
	text, ok := c.text("proc/swaps")
	lines := strings.Count(text, "\n")
	c.when(!ok || lines == 0, layout.CheckSwap, "There is none.", fmt.Sprintf("%d swap areas are in use.", lines),
		"What guests have in memory ends up on a disk: boot the kernel that Ashlar comes with.")
}

func (c *checker) ksm() {
	run, ok := c.text("sys/kernel/mm/ksm/run")
	c.when(!ok || run == "0", layout.CheckKSM, "Memory is not shared between guests.", "The kernel shares equal pages (run is "+run+").",
		"Guests can find out what others have in memory: boot the kernel that Ashlar comes with.")
}

func (c *checker) aslr() {
	level, ok := c.text("proc/sys/kernel/randomize_va_space")
	c.when(ok && level == "2", layout.CheckASLR, "Addresses of programs are random.", "Addresses of programs are not all random ("+level+").",
		"Take norandmaps off the kernel command line.")
}

func (c *checker) lockdown() {
	mode, ok := c.text("sys/kernel/security/lockdown")
	c.when(ok && !strings.Contains(mode, "[none]"), layout.CheckLockdown, "The kernel is locked down: "+mode+".", "The kernel is not locked down: "+mode+".",
		"Whoever becomes root can change the kernel: put lockdown=integrity on the kernel command line.")
}

// secureBootFile is the UEFI variable SecureBoot, four bytes of attributes before its value
// (UEFI specification, section 3.3).
const secureBootFile = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

func (c *checker) secureBoot() {
	b, err := fs.ReadFile(c.root, secureBootFile)
	c.when(err == nil && len(b) == 5 && b[4] == 1, layout.CheckSecureBoot, "The firmware starts only what is signed.",
		"The firmware starts whatever is on the stick.", "Sign the image, enroll its key, and switch Secure Boot on in the firmware's set-up.")
}

func (c *checker) iommu() {
	groups, _ := fs.Glob(c.root, "sys/kernel/iommu_groups/*")
	c.when(len(groups) > 0, layout.CheckIOMMU, fmt.Sprintf("Devices are in %d groups.", len(groups)), "Devices reach all of the memory.",
		"Switch VT-d or AMD-Vi (IOMMU) on in the firmware's set-up: without it no device can be given to a guest.")
	text, ok := c.text("proc/interrupts")
	remapped := strings.Contains(text, "IR-PCI-MSI") || strings.Contains(text, "IR-IO-APIC")
	if !ok {
		c.add(layout.CheckInterrupts, hostcall.Unknown, "The kernel does not tell its interrupts.", "Boot the kernel that Ashlar comes with.")
		return
	}
	c.when(remapped, layout.CheckInterrupts, "Interrupts of devices are remapped.", "Devices can raise any interrupt.",
		"Switch interrupt remapping, or x2APIC with VT-d or AMD-Vi, on in the firmware's set-up.")
}
