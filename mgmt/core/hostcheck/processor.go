package hostcheck

import (
	"io/fs"
	"path"
	"strings"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const cpus = "sys/devices/system/cpu"

// vulnerabilities adds a finding for each that the kernel knows.
func (c *checker) vulnerabilities() {
	names, _ := fs.Glob(c.root, cpus+"/vulnerabilities/*")
	if len(names) == 0 {
		c.add(layout.CheckVulnerabilities, hostcall.Unknown, "The kernel tells nothing of the processor's.",
			"Boot the kernel that Ashlar comes with.")
		return
	}
	for _, n := range names {
		text, _ := c.text(n)
		result, advice := judge(text)
		c.add(layout.CheckVulnerabilities+"/"+path.Base(n), result, text, advice)
	}
}

// judge reads the words of a file of vulnerabilities.
func judge(text string) (result hostcall.CheckResult, advice string) {
	const (
		firmware = "Build the image anew, with the microcode of today, or update the firmware."
		siblings = "Switch SMT off in the firmware's set-up, or with nosmt on the kernel command line."
		options  = "Take mitigations=off, and what else switches mitigations off, from the kernel command line; otherwise update the firmware."
	)
	lower := strings.ToLower(text)
	switch {
	case strings.HasPrefix(text, "Not affected"):
		return hostcall.Passed, ""
	case strings.Contains(lower, "no microcode"):
		return hostcall.Weak, firmware
	case strings.Contains(lower, "smt vulnerable"):
		return hostcall.Weak, siblings
	case strings.Contains(lower, "smt host state unknown"):
		return hostcall.Unknown, "The host is itself a guest: ask who runs it about its siblings."
	case strings.HasPrefix(text, "Mitigation:") && !strings.Contains(lower, "vulnerable"):
		return hostcall.Passed, ""
	case strings.HasPrefix(text, "Unknown"), text == "":
		return hostcall.Unknown, firmware
	}
	return hostcall.Weak, options
}

func (c *checker) smt(coreScheduling bool) {
	active, ok := c.text(cpus + "/smt/active")
	shared := ok && active == "1"
	c.when(!shared, layout.CheckSMT, "No two processors share a core.", "Processors share cores (SMT).",
		"Guests on the same core can find out about each other: give them whole cores, or switch SMT off in the firmware's set-up or with nosmt on the kernel command line.")
	switch {
	case !shared:
		c.add(layout.CheckCoreScheduling, hostcall.Passed, "There is nothing to keep apart.", "")
	default:
		c.when(coreScheduling, layout.CheckCoreScheduling, "The kernel can keep guests from sharing a core.", "The kernel cannot keep guests from sharing a core.",
			"Boot the kernel that Ashlar comes with.")
	}
}

// weakening are words of the kernel command line that take protection away, and what they do.
var weakening = []struct{ word, does string }{
	{"mitigations=off", "leaves known holes of the processor open"},
	{"nopti", "lets programs read the kernel (Meltdown)"},
	{"pti=off", "lets programs read the kernel (Meltdown)"},
	{"nospectre_v1", "leaves Spectre variant 1 open"},
	{"nospectre_v2", "leaves Spectre variant 2 open"},
	{"spectre_v2=off", "leaves Spectre variant 2 open"},
	{"spec_store_bypass_disable=off", "leaves Spectre variant 4 open"},
	{"l1tf=off", "leaves L1TF open"},
	{"mds=off", "leaves MDS open"},
	{"tsx_async_abort=off", "leaves TAA open"},
	{"mmio_stale_data=off", "leaves MMIO stale data open"},
	{"retbleed=off", "leaves Retbleed open"},
	{"srbds=off", "leaves SRBDS open"},
	{"gather_data_sampling=off", "leaves Downfall open"},
	{"kvm.nx_huge_pages=off", "lets a guest halt the host (iTLB multihit)"},
	{"iommu=off", "lets devices reach all of the memory"},
	{"intel_iommu=off", "lets devices reach all of the memory"},
	{"amd_iommu=off", "lets devices reach all of the memory"},
	{"intremap=off", "lets devices raise any interrupt"},
	{"vfio_iommu_type1.allow_unsafe_interrupts=1", "lets guests' devices raise any interrupt"},
	{"nokaslr", "has the kernel where everybody expects it"},
	{"norandmaps", "has programs where everybody expects them"},
	{"nosmep", "lets the kernel run what programs wrote"},
	{"nosmap", "lets the kernel take what programs wrote for its own"},
	{"init_on_alloc=0", "lets old content of memory show"},
	{"dis_ucode_ldr", "keeps the processor from the image's microcode"},
	{"lockdown=none", "lets root change the kernel"},
	{"ashlar.rescue", "gives a root shell to who is at the console"},
}

func (c *checker) commandLine() {
	text, _ := c.text("proc/cmdline")
	words := strings.Fields(text)
	var found []string
	for _, w := range weakening {
		for _, word := range words {
			if word == w.word || w.word == "ashlar.rescue" && strings.HasPrefix(word, w.word+"=") {
				found = append(found, w.word+" "+w.does)
			}
		}
	}
	c.when(len(found) == 0, layout.CheckCommandLine, "Nothing on it takes protection away.", strings.Join(found, "; ")+".",
		"Boot without these words.")
}
