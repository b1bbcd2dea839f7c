package layout

// Names of what the host is checked for (mgmt/core/hostcheck), in the order in which they are
// shown. The configuration document can require them.
const (
	// CheckVulnerabilities is a check for each that the kernel knows of the processor's
	// (Documentation/ABI/testing/sysfs-devices-system-cpu), named CheckVulnerabilities/NAME.
	CheckVulnerabilities = "vulnerabilities"
	CheckSMT             = "smt"
	CheckCoreScheduling  = "core-scheduling"
	CheckMicrocode       = "microcode"
	CheckIOMMU           = "iommu"
	CheckInterrupts      = "interrupt-remapping"
	CheckSecureBoot      = "secure-boot"
	CheckLockdown        = "lockdown"
	CheckCommandLine     = "kernel-command-line"
	CheckKSM             = "ksm"
	CheckSwap            = "swap"
	CheckASLR            = "aslr"
)

// Checks are the names of all.
func Checks() []string {
	return []string{CheckVulnerabilities, CheckSMT, CheckCoreScheduling, CheckMicrocode, CheckIOMMU, CheckInterrupts,
		CheckSecureBoot, CheckLockdown, CheckCommandLine, CheckKSM, CheckSwap, CheckASLR}
}
