package render

import (
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// hostDevice is a device of the host's that a virtual machine has.
func hostDevice(d *ashlarv1.HostDevice) string {
	words := nonEmpty(ID(d.GetAddress()), ID(d.GetDevice()))
	if d.GetRom() {
		words = append(words, "with its option ROM")
	}
	if d.GetAllowNoReset() {
		words = append(words, "also without reset")
	}
	if d.GetFault() != "" {
		words = append(words, d.GetFault()+" ("+when(d.GetFaultTime())+")")
	}
	return strings.Join(words, ", ")
}
