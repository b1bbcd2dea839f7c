package machine

import (
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/bios"
	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// enterReal gives the machine a BIOS, in which the first vCPU starts.
func (m *Machine) enterReal(e boot.Entry, ranges []boot.Range) error {
	m.bios = bios.New(bios.Config{
		Memory: m.mem, Map: ranges, Console: m.c.Console.Writer(m.uart), Key: m.uart.Take, PCI: m.bus,
		Now:   func() time.Time { return time.Now().UTC() },
		Reset: func() { m.end(protocol.Reset, "") },
	})
	if err := m.bios.Write(uint16(e.RIP >> 4)); err != nil {
		return err
	}
	cpu := m.runners[0].cpu
	s, err := cpu.Sregs()
	if err != nil {
		return err
	}
	arch.RealMode(&s, bios.StartSegment, e.Segment)
	if err := cpu.SetSregs(&s); err != nil {
		return err
	}
	r := arch.Registers(bios.StartOffset)
	r.RSP = e.RSP
	return cpu.SetRegs(&r)
}

// callBIOS makes the service that the vCPU's OUT calls for.
func (r *runner) callBIOS() error {
	// The OUT is over, and the registers are those after it, when the vCPU is run
	// again (Documentation/virt/kvm/api.rst, KVM_EXIT_IO): not further than that.
	r.cpu.Interrupt()
	if reason, err := r.cpu.Run(); !errors.Is(err, kvm.ErrInterrupted) {
		return errors.Join(err, fmt.Errorf("vCPU %d: exit %d where a port access ends", r.cpu.ID(), reason))
	}
	regs, err := r.cpu.Regs()
	if err != nil {
		return err
	}
	sregs, err := r.cpu.Sregs()
	if err != nil {
		return err
	}
	if r.m.bios.Call(&regs, &sregs) {
		if err := r.cpu.SetRegs(&regs); err != nil {
			return err
		}
	}
	return kvm.ErrInterrupted // as somebody may want something of it by now
}
