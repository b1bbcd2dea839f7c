package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func (c *VCPU) wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s of vCPU %d: %w", name, c.id, err)
}

// Regs reads the general registers.
func (c *VCPU) Regs() (Regs, error) {
	var r Regs
	err := getRegs(c.f, &r)
	return r, c.wrap("KVM_GET_REGS", err)
}

// SetRegs sets the general registers.
func (c *VCPU) SetRegs(r *Regs) error { return c.wrap("KVM_SET_REGS", setRegs(c.f, r)) }

// Sregs reads the system registers.
func (c *VCPU) Sregs() (Sregs, error) {
	var s Sregs
	err := getSregs(c.f, &s)
	return s, c.wrap("KVM_GET_SREGS", err)
}

// SetSregs sets the system registers.
func (c *VCPU) SetSregs(s *Sregs) error { return c.wrap("KVM_SET_SREGS", setSregs(c.f, s)) }

// FPU reads the floating point state.
func (c *VCPU) FPU() (FPU, error) {
	var f FPU
	err := getFPU(c.f, &f)
	return f, c.wrap("KVM_GET_FPU", err)
}

// SetFPU sets the floating point state.
func (c *VCPU) SetFPU(f *FPU) error { return c.wrap("KVM_SET_FPU", setFPU(c.f, f)) }

// LAPIC reads the registers of the local APIC.
func (c *VCPU) LAPIC() (LAPICState, error) {
	var l LAPICState
	err := getLAPIC(c.f, &l)
	return l, c.wrap("KVM_GET_LAPIC", err)
}

// SetLAPIC sets the registers of the local APIC.
func (c *VCPU) SetLAPIC(l *LAPICState) error { return c.wrap("KVM_SET_LAPIC", setLAPIC(c.f, l)) }

// SetCPUID says what the guest's CPUID shows. It comes before the first Run.
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUID {
		return fmt.Errorf("KVM_SET_CPUID2 of vCPU %d: %d entries, at most %d", c.id, len(entries), maxCPUID)
	}
	t := &cpuidTable{cpuidHeader: cpuidHeader{nent: uint32(len(entries))}}
	copy(t.entries[:], entries)
	return c.wrap("KVM_SET_CPUID2", setCPUID2(c.f, t))
}

// MSRs reads the Data of the MSRs whose Index is set in msrs.
func (c *VCPU) MSRs(msrs []MSR) error {
	t, err := c.msrTable(msrs)
	if err != nil {
		return err
	}
	n, err := getMSRs(c.f, t)
	if err != nil {
		return c.wrap("KVM_GET_MSRS", err)
	}
	copy(msrs, t.entries[:n])
	if n < len(msrs) {
		return fmt.Errorf("KVM_GET_MSRS of vCPU %d: no MSR %#x", c.id, msrs[n].Index)
	}
	return nil
}

// SetMSRs writes MSRs, in order.
func (c *VCPU) SetMSRs(msrs []MSR) error {
	t, err := c.msrTable(msrs)
	if err != nil {
		return err
	}
	n, err := setMSRs(c.f, t)
	if err != nil {
		return c.wrap("KVM_SET_MSRS", err)
	}
	if n < len(msrs) {
		return fmt.Errorf("KVM_SET_MSRS of vCPU %d: MSR %#x does not take %#x", c.id, msrs[n].Index, msrs[n].Data)
	}
	return nil
}

func (c *VCPU) msrTable(msrs []MSR) (*msrTable, error) {
	if len(msrs) > maxMSRs {
		return nil, fmt.Errorf("%d MSRs of vCPU %d: at most %d at once", len(msrs), c.id, maxMSRs)
	}
	t := &msrTable{msrsHeader: msrsHeader{nmsrs: uint32(len(msrs))}}
	copy(t.entries[:], msrs)
	return t, nil
}

// MPState reads whether the vCPU runs, is halted, or has never been started.
func (c *VCPU) MPState() (MPState, error) {
	var s mpState
	err := getMPState(c.f, &s)
	return MPState(s.state), c.wrap("KVM_GET_MP_STATE", err)
}

// SetMPState sets whether the vCPU runs.
func (c *VCPU) SetMPState(s MPState) error {
	return c.wrap("KVM_SET_MP_STATE", setMPState(c.f, &mpState{state: uint32(s)}))
}

// Events reads pending exceptions, interrupts and NMIs.
func (c *VCPU) Events() (VCPUEvents, error) {
	var e VCPUEvents
	err := getVCPUEvents(c.f, &e)
	return e, c.wrap("KVM_GET_VCPU_EVENTS", err)
}

// SetEvents sets pending exceptions, interrupts and NMIs.
func (c *VCPU) SetEvents(e *VCPUEvents) error {
	return c.wrap("KVM_SET_VCPU_EVENTS", setVCPUEvents(c.f, e))
}

// TSCKHz is the guest's TSC frequency in kHz, 0 where KVM does not know.
func (c *VCPU) TSCKHz() (int, error) {
	n, err := ioctl(c.f, kvmGetTSCKHz, 0)
	if errors.Is(err, unix.EIO) {
		return 0, nil
	}
	return n, c.wrap("KVM_GET_TSC_KHZ", err)
}

// Paused tells a guest with kvmclock that the host stopped it, so that its
// watchdogs do not bark (KVM_KVMCLOCK_CTRL). A guest without is left alone.
func (c *VCPU) Paused() error {
	_, err := ioctl(c.f, kvmKVMClockCtrl, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return c.wrap("KVM_KVMCLOCK_CTRL", err)
}
