package kvm

// NMI makes the vCPU meet a non-maskable interrupt when it runs next, or, where
// one is pending or being handled, after that (KVM_NMI). KVM asks nobody: with
// an in-kernel local APIC the caller looks whether its LINT1 pin takes NMIs.
func (c *VCPU) NMI() error {
	_, err := ioctl(c.f, kvmNMI, 0)
	return c.wrap("KVM_NMI", err)
}
