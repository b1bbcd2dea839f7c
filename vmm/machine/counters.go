package machine

import (
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// kvmCounters are those of KVM's counters that say what a guest costs
// (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). Exits are from the guest to the
// kernel; few of them reach this process.
var kvmCounters = []string{
	counterExits, "io_exits", "mmio_exits", "halt_exits", "irq_exits", "irq_window_exits", "nmi_window_exits",
	"request_irq_exits", "signal_exits", "insn_emulation", "hypercalls", "pf_taken", "irq_injections", "nmi_injections",
	"preemption_reported", "host_state_reload", "halt_wakeup", "halt_attempted_poll", "halt_successful_poll",
}

// Exits to this process, by what they were for.
const (
	userIO = iota
	userMMIO
	userInterrupted
	userOther
	userKinds
)

// userNames are their names as counters.
var userNames = [userKinds]string{"user_io_exits", "user_mmio_exits", "user_interrupts", "user_other_exits"}

// userExits counts how often a vCPU has left the kernel for this process. Its thread
// counts, anybody reads.
type userExits [userKinds]atomic.Uint64

func (u *userExits) count(reason kvm.ExitReason) {
	switch reason {
	case kvm.ExitIO:
		u[userIO].Add(1)
	case kvm.ExitMMIO:
		u[userMMIO].Add(1)
	case kvm.ExitIntr:
		u[userInterrupted].Add(1)
	default:
		u[userOther].Add(1)
	}
}

// A counter is a device, or a PCI function, that counts.
type counter interface {
	Counters() map[string]uint64
}

// Counters are what guest and devices have done since they were made. Reading them
// stops nothing: KVM's are in a file, those of devices are atomic. There are none
// after Close, and none of vCPUs above the highest that is there.
func (m *Machine) Counters() protocol.Counters {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	out := protocol.Counters{Devices: make(map[string]uint64), VCPUs: make(map[string][]uint64)}
	runners := m.runners[:min(m.highest(), len(m.runners))]
	for _, name := range kvmCounters {
		if values, ok := kvmCounter(runners, name); ok {
			out.VCPUs[name] = values
		}
	}
	for kind, name := range userNames {
		for _, r := range runners {
			out.VCPUs[name] = append(out.VCPUs[name], r.exits[kind].Load())
		}
	}
	for _, d := range m.devices {
		for _, c := range countersOf(d.fn) {
			for name, n := range c.Counters() {
				out.Devices[d.name+"."+name] = n
			}
		}
	}
	return out
}

// Histograms are how long requests of devices took, of those that tell.
func (m *Machine) Histograms() protocol.Histograms {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	out := make(protocol.Histograms)
	for number, d := range m.disks {
		for kind, counts := range d.Histograms() {
			out[diskName(number)+"."+kind] = counts
		}
	}
	return out
}

// kvmCounter reads a counter of vCPUs; it is false where this kernel has none.
func kvmCounter(runners []*runner, name string) ([]uint64, bool) {
	var values []uint64
	for _, r := range runners {
		n, err := r.stats.Counter(name)
		if err != nil {
			return nil, false
		}
		values = append(values, n)
	}
	return values, len(values) > 0
}

// countersOf finds what counts: the function, and the virtio device behind it.
func countersOf(fn pci.Function) []counter {
	var out []counter
	if c, ok := fn.(counter); ok {
		out = append(out, c)
	}
	if t, ok := fn.(interface{ Device() virtio.Device }); ok {
		if c, ok := t.Device().(counter); ok {
			out = append(out, c)
		}
	}
	return out
}
