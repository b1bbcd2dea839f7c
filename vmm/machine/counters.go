package machine

import (
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// vcpuCounters are those of KVM's counters that say what a guest costs.
var vcpuCounters = []string{
	counterExits, "io_exits", "mmio_exits", "halt_exits", "irq_exits", "signal_exits", "irq_injections", "host_state_reload",
}

// A counter is a device that counts.
type counter interface {
	Counters() map[string]uint64
}

// Counters are KVM's, summed over all vCPUs, as "vcpu.NAME", and those of
// devices as "DEVICE.NAME". There are none after Close.
func (m *Machine) Counters() map[string]uint64 {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	out := make(map[string]uint64)
	for _, name := range vcpuCounters {
		for _, r := range m.runners {
			if n, err := r.stats.Counter(name); err == nil {
				out["vcpu."+name] += n
			}
		}
	}
	for _, d := range m.devices {
		if c, ok := countersOf(d.fn); ok {
			for name, n := range c.Counters() {
				out[d.name+"."+name] = n
			}
		}
	}
	return out
}

// countersOf finds what counts: the function, or the virtio device behind it.
func countersOf(fn pci.Function) (counter, bool) {
	if t, ok := fn.(interface{ Device() virtio.Device }); ok {
		c, ok := t.Device().(counter)
		return c, ok
	}
	c, ok := fn.(counter)
	return c, ok
}
