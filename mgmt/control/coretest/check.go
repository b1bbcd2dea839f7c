package coretest

import "github.com/ashlar-hv/ashlar/mgmt/core/hostcall"

// Check is what a core finds that guards its guests.
func Check() *hostcall.HostCheckResult {
	return &hostcall.HostCheckResult{Refused: true, Findings: []hostcall.Finding{
		{Name: "iommu", Result: hostcall.Weak, Detail: "Devices reach all of the memory.", Advice: "Switch it on.", Required: true},
		{Name: "ksm", Result: hostcall.Passed, Detail: "None."},
		{Name: "microcode", Result: hostcall.Unknown},
		{Name: "swap", Result: "odd"},
	}}
}
