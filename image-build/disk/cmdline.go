package disk

import "strings"

// commandLine is the kernel's command line on the host, each word with its
// reason.
var commandLine = []struct{ word, reason string }{
	{"console=ttyS0,115200", "servers are watched over their first serial port (and IPMI serial over LAN)"},
	{"console=tty0", "and on their screen; the last one is /dev/console, where init writes"},
	{"intel_iommu=on", "passthrough needs the IOMMU; Intel's is off unless asked for"},
	{"amd_iommu=on", "AMD's is on by default; here for those who read the line"},
	{"iommu=pt", "the host's own devices are mapped one to one: full speed"},
	{"quiet", "the console belongs to init's messages"},
	{"loglevel=4", "with errors and warnings of the kernel on it"},
	{"lockdown=integrity", "root cannot change the running kernel: no raw memory, ports, MSRs"},
	{"bonding.max_bonds=0", "no bond0 that nobody asked for"},
	{"panic=10", "a host that panicked restarts after ten seconds instead of waiting for hands"},
}

// Rescue asks init for a shell, on the second serial port. It is for the lab, where the machine
// that emulates may be so busy that the timer's interrupts do not come while the kernel looks
// for them at boot: with interrupt remapping it panics then, unless it does not look.
const Rescue = "ashlar.rescue=ttyS1 no_timer_check"

// CommandLine is the default command line of an image.
func CommandLine() string {
	words := make([]string, len(commandLine))
	for i, w := range commandLine {
		words[i] = w.word
	}
	return strings.Join(words, " ")
}
