package machine

import (
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/processor"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A CPU says what the vCPUs of a machine are like. The zero CPU is what a
// machine has without any wish.
type CPU struct {
	Model    string             // of processor.Models; "" is processor.HostModel
	Topology processor.Topology // as processor.NewTopology completes it
	HyperV   bool               // Hyper-V's interface, besides KVM's
	// HaltPoll is how long the host waits for a halted vCPU before it sleeps, at
	// most; nil leaves it to the kernel.
	HaltPoll *time.Duration
	NoPVEOI  bool // every end of an interrupt is an exit
	// TSCDeadline shows the TSC deadline timer without an invariant TSC, too.
	TSCDeadline bool
}

// A processors is what all vCPUs of a machine have in common.
type processors struct {
	supported []kvm.CPUIDEntry // by KVM on this host
	model     []kvm.CPUIDEntry // of it, what the model shows
	hyperV    []kvm.CPUIDEntry
	deadline  bool // timers by TSC deadline work
}

// processors asks KVM what vCPUs can be like.
func (m *Machine) processors() (*processors, error) {
	if most, err := m.sys.Check(kvm.CapMaxVCPUs); err != nil || m.c.most() > most {
		return nil, errors.Join(err, fmt.Errorf("%d vCPUs: KVM on this host has at most %d a machine", m.c.most(), most))
	}
	p := &processors{}
	var err error
	if p.supported, err = m.sys.SupportedCPUID(); err != nil {
		return nil, err
	}
	if p.model, err = arch.Model(m.c.CPU.Model, p.supported); err != nil {
		return nil, err
	}
	if m.c.CPU.HyperV {
		hv, err := m.sys.SupportedHyperVCPUID()
		if err != nil {
			return nil, fmt.Errorf("interface of Hyper-V: %w", err)
		}
		p.hyperV = arch.HyperV(hv)
	}
	p.deadline = m.sys.Has(kvm.CapTSCDeadlineTimer) && (arch.InvariantTSC(p.supported) || m.c.CPU.TSCDeadline)
	m.pmTimer = !p.deadline || m.c.CPU.HyperV
	return p, nil
}

// addVCPU makes the vCPU with this index and all of its state that does not
// depend on the kernel.
func (m *Machine) addVCPU(index int, p *processors) error {
	cpu, err := m.vm.CreateVCPU(m.c.CPU.Topology.APICID(index))
	if err != nil {
		return err
	}
	r := &runner{m: m, cpu: cpu, present: index < m.c.VCPUs}
	m.runners = append(m.runners, r)
	if r.stats, err = cpu.Stats(m.runners[0].stats); err != nil {
		return err
	}
	if err := m.setCPUID(cpu, index, p); err != nil {
		return err
	}
	if err := cpu.SetMSRs(arch.MSRs()); err != nil {
		return err
	}
	l, err := cpu.LAPIC()
	if err != nil {
		return err
	}
	arch.LINT(&l)
	return cpu.SetLAPIC(&l)
}

func (m *Machine) setCPUID(cpu *kvm.VCPU, index int, p *processors) error {
	if p.hyperV != nil {
		if err := cpu.EnableHyperV(); err != nil {
			return err
		}
	}
	khz, err := cpu.TSCKHz()
	if err != nil {
		return err
	}
	return cpu.SetCPUID(arch.CPUID(p.model, arch.CPU{
		Index: index, Topology: m.c.CPU.Topology, TSCDeadline: p.deadline, TSCKHz: khz, HyperV: p.hyperV,
		NoPVEOI: m.c.CPU.NoPVEOI,
	}))
}

// cpuOf checks what a Spec says of its vCPUs.
func cpuOf(s *protocol.Spec) (CPU, *protocol.Error) {
	want := protocol.CPU{}
	if s.CPU != nil {
		want = *s.CPU
	}
	c := CPU{Model: want.Model, HyperV: want.HyperV, NoPVEOI: want.NoPVEOI, TSCDeadline: want.TSCDeadline}
	var err error
	c.Topology, err = processor.NewTopology(s.Most(), processor.Topology{Sockets: sockets(s, want), Cores: want.Cores, Threads: want.Threads})
	if err != nil {
		return CPU{}, invalid("cpu", "%v", err)
	}
	if ns := want.HaltPollNs; ns != nil {
		if *ns > protocol.HaltPollLimit {
			return CPU{}, invalid("cpu.haltPollNs", "%d ns of halt polling: at most %d", *ns, protocol.HaltPollLimit)
		}
		d := time.Duration(*ns)
		c.HaltPoll = &d
	}
	return c, nil
}
