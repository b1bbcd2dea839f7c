package kvm

import (
	"fmt"
	"os"
)

// A Route says what a GSI (global system interrupt) leads to: a pin of an
// in-kernel controller, or, with MSI set, a message.
type Route struct {
	GSI     uint32
	MSI     bool
	Chip    uint32 // IRQChipPICMaster, IRQChipPICSlave, IRQChipIOAPIC
	Pin     uint32
	Address uint64 // MSI
	Data    uint32 // MSI
}

// SetRoutes replaces all routes of the VM (KVM_SET_GSI_ROUTING). A signal on
// its way meets either the old table or the new one.
func (v *VM) SetRoutes(routes []Route) error {
	if len(routes) > MaxRoutes {
		return fmt.Errorf("set %d interrupt routes: at most %d", len(routes), MaxRoutes)
	}
	v.routeMu.Lock()
	defer v.routeMu.Unlock()
	if v.routes == nil {
		v.routes = new(routingTable)
	}
	t := v.routes
	t.nr = uint32(len(routes))
	for i, r := range routes {
		e := &t.entries[i]
		*e = routingEntry{gsi: r.GSI}
		if r.MSI {
			e.typ = routingMSI
			e.u[0], e.u[1], e.u[2] = uint32(r.Address), uint32(r.Address>>32), r.Data
		} else {
			e.typ = routingIRQChip
			e.u[0], e.u[1] = r.Chip, r.Pin
		}
	}
	if err := setGSIRouting(v.f, t); err != nil {
		return fmt.Errorf("KVM_SET_GSI_ROUTING of %d routes: %w", len(routes), err)
	}
	return nil
}

// IRQFD makes a write to the eventfd fd pulse gsi (KVM_IRQFD).
func (v *VM) IRQFD(fd *os.File, gsi uint32) error {
	if err := setIRQFD(v.f, &irqfd{fd: uint32(fd.Fd()), gsi: gsi}); err != nil {
		return fmt.Errorf("KVM_IRQFD of GSI %d: %w", gsi, err)
	}
	return nil
}

// RemoveIRQFD undoes IRQFD. When it returns, no signal is under way any more.
func (v *VM) RemoveIRQFD(fd *os.File, gsi uint32) error {
	if err := setIRQFD(v.f, &irqfd{fd: uint32(fd.Fd()), gsi: gsi, flags: irqfdDeassign}); err != nil {
		return fmt.Errorf("KVM_IRQFD removal of GSI %d: %w", gsi, err)
	}
	return nil
}

// IRQLine sets the level of gsi (KVM_IRQ_LINE).
func (v *VM) IRQLine(gsi uint32, high bool) error {
	l := irqLevel{irq: gsi}
	if high {
		l.level = 1
	}
	if err := setIRQLine(v.f, &l); err != nil {
		return fmt.Errorf("KVM_IRQ_LINE of GSI %d: %w", gsi, err)
	}
	return nil
}

// SignalMSI sends one message (KVM_SIGNAL_MSI).
func (v *VM) SignalMSI(address uint64, data uint32) error {
	m := msi{addressLo: uint32(address), addressHi: uint32(address >> 32), data: data}
	if err := signalMSI(v.f, &m); err != nil {
		return fmt.Errorf("KVM_SIGNAL_MSI %#x to %#x: %w", data, address, err)
	}
	return nil
}

// An IOEvent is a place that a guest writes to, to signal an eventfd without
// an exit to this process.
type IOEvent struct {
	Address uint64
	Length  int     // 1, 2, 4 or 8 bytes, or 0 for a write of any length
	Port    bool    // Address is an I/O port
	Data    *uint64 // only this value, where not nil
}

// IOEventFD makes guest writes that fit e signal fd (KVM_IOEVENTFD).
func (v *VM) IOEventFD(e IOEvent, fd *os.File) error { return v.ioEventFD(e, fd, 0) }

// RemoveIOEventFD undoes the IOEventFD of just these arguments.
func (v *VM) RemoveIOEventFD(e IOEvent, fd *os.File) error {
	return v.ioEventFD(e, fd, ioeventfdDeassign)
}

func (v *VM) ioEventFD(e IOEvent, fd *os.File, flags uint32) error {
	if e.Length == 0 && !v.sys.Has(CapIOEventFDAnyLen) {
		return &MissingError{CapIOEventFDAnyLen}
	}
	a := ioeventfd{addr: e.Address, len: uint32(e.Length), fd: int32(fd.Fd()), flags: flags}
	if e.Port {
		a.flags |= ioeventfdPIO
	}
	if e.Data != nil {
		a.flags |= ioeventfdDatamatch
		a.datamatch = *e.Data
	}
	if err := setIOEventFD(v.f, &a); err != nil {
		return fmt.Errorf("KVM_IOEVENTFD at %#x: %w", e.Address, err)
	}
	return nil
}
