package kvm

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A VM is one guest's place in KVM. Its methods may be called by several
// goroutines at once, except Close.
type VM struct {
	sys *System
	f   *os.File

	routeMu sync.Mutex
	routes  *routingTable // guarded by routeMu; kept, as it is large and often wanted
}

// Close closes the VM. It goes away with the last of its vCPUs.
func (v *VM) Close() error { return v.f.Close() }

// A MemorySlot maps host memory into the guest.
type MemorySlot struct {
	Slot     uint32
	Flags    uint32 // LogDirtyPages, ReadOnly
	GPA      uint64
	Size     uint64 // bytes; 0 removes the slot
	HostAddr uintptr
}

// SetMemoryRegion makes, changes or removes a slot (KVM_SET_USER_MEMORY_REGION).
// The caller keeps the host memory mapped as long as the slot is there.
func (v *VM) SetMemoryRegion(m MemorySlot) error {
	r := userMemoryRegion{
		slot: m.Slot, flags: m.Flags, guestPhysAddr: m.GPA,
		memorySize: m.Size, userspaceAddr: uint64(m.HostAddr),
	}
	if err := setUserMemoryRegion(v.f, &r); err != nil {
		return fmt.Errorf("map slot %d, %d bytes at %#x: %w", m.Slot, m.Size, m.GPA, err)
	}
	return nil
}

// DirtyLog fills bitmap, one bit a page of slot, with the pages written since
// the last call (KVM_GET_DIRTY_LOG). bitmap has a bit for every page of the
// slot, rounded up to whole words; pages is the number of pages of the slot.
func (v *VM) DirtyLog(slot uint32, pages uint64, bitmap []uint64) error {
	if uint64(len(bitmap)) < (pages+63)/64 || len(bitmap) == 0 {
		return fmt.Errorf("dirty log of slot %d: %d words for %d pages", slot, len(bitmap), pages)
	}
	if err := getDirtyLog(v.f, slot, bitmap); err != nil {
		return fmt.Errorf("KVM_GET_DIRTY_LOG of slot %d: %w", slot, err)
	}
	return nil
}

// SetTSSAddress gives KVM three pages of guest-physical space that Intel CPUs
// need to run real mode, and one behind them for its page table
// (KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR). Both lie below 4 GiB and
// hold no memory of the guest.
func (v *VM) SetTSSAddress(tss, identityMap uint64) error {
	if err := setIdentityMapAddr(v.f, identityMap); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR to %#x: %w", identityMap, err)
	}
	if _, err := ioctl(v.f, kvmSetTSSAddr, uintptr(tss)); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR to %#x: %w", tss, err)
	}
	return nil
}

// CreateIRQChip makes two PICs and an IOAPIC with 24 pins in the kernel, and a
// local APIC for every vCPU made later (KVM_CREATE_IRQCHIP).
func (v *VM) CreateIRQChip() error {
	if _, err := ioctl(v.f, kvmCreateIRQChip, 0); err != nil {
		return fmt.Errorf("KVM_CREATE_IRQCHIP: %w", err)
	}
	return nil
}

// CreateSplitIRQChip makes local APICs only, and keeps ioapicPins routes free
// for an IOAPIC outside the kernel (KVM_CAP_SPLIT_IRQCHIP).
func (v *VM) CreateSplitIRQChip(ioapicPins int) error {
	if !v.sys.Has(CapSplitIRQChip) {
		return &MissingError{CapSplitIRQChip}
	}
	c := enableCap{cap: uint32(CapSplitIRQChip), args: [4]uint64{uint64(ioapicPins)}}
	if err := enableCapability(v.f, &c); err != nil {
		return fmt.Errorf("enable %v: %w", CapSplitIRQChip, err)
	}
	return nil
}

// CreatePIT makes an i8254 at ports 0x40 to 0x43 in the kernel (KVM_CREATE_PIT2).
func (v *VM) CreatePIT() error {
	if !v.sys.Has(CapPIT2) {
		return &MissingError{CapPIT2}
	}
	if err := createPIT2(v.f, &pitConfig{flags: pitSpeakerDummy}); err != nil {
		return fmt.Errorf("KVM_CREATE_PIT2: %w", err)
	}
	return nil
}

// IRQChipState fills c, whose ID says which controller (KVM_GET_IRQCHIP).
func (v *VM) IRQChipState(c *IRQChip) error {
	if err := getIRQChip(v.f, c); err != nil {
		return fmt.Errorf("KVM_GET_IRQCHIP %d: %w", c.ID, err)
	}
	return nil
}

// SetIRQChipState sets the state of the controller c.ID (KVM_SET_IRQCHIP).
func (v *VM) SetIRQChipState(c *IRQChip) error {
	if err := setIRQChip(v.f, c); err != nil {
		return fmt.Errorf("KVM_SET_IRQCHIP %d: %w", c.ID, err)
	}
	return nil
}

// Clock is the guest's kvmclock (KVM_GET_CLOCK).
func (v *VM) Clock() (ClockData, error) {
	var c ClockData
	if err := getClock(v.f, &c); err != nil {
		return ClockData{}, fmt.Errorf("KVM_GET_CLOCK: %w", err)
	}
	return c, nil
}

// SetClock sets the guest's kvmclock to c.Clock (KVM_SET_CLOCK).
func (v *VM) SetClock(c ClockData) error {
	c.Flags = 0
	if err := setClock(v.f, &c); err != nil {
		return fmt.Errorf("KVM_SET_CLOCK: %w", err)
	}
	return nil
}

// CreateVCPU makes the vCPU with this ID, which is its local APIC's ID too.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(v.f, kvmCreateVCPU, uintptr(id))
	if err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("create vCPU %d: there is one already: %w", id, err)
		}
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", id, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("kvm-vcpu-%d", id))
	run, err := mapRun(f, v.sys.mmapSize)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map run page of vCPU %d: %w", id, err)
	}
	return &VCPU{id: id, f: f, run: run}, nil
}
