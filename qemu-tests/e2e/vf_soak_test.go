package e2e

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// TestSoakVirtualFunction starts and stops a guest with a virtual function over and over. It
// works each time, with the same address, and each time all of it is given back.
func TestSoakVirtualFunction(t *testing.T) {
	s := newSoak(t, 2, 20)
	h := sharedHost(t)
	h.withFunctions(t, "cycled")
	h.create(t, "cycled", given(wired()))
	d := h.vm(t, "cycled").Devices[0]
	mac, function := d.VirtualFunction.GetMacAddress(), ""
	before, faults := h.open(t), h.iommuFaults(t)
	for s.next() {
		h.boot(t, "cycled")
		h.onWire(t, "cycled")
		d = h.vm(t, "cycled").Devices[0]
		if d.VirtualFunction.GetMacAddress() != mac || function != "" && d.Address != function || d.Fault != "" {
			t.Errorf("start %d: %v; want the address %s, the function %q", s.step, d, mac, function)
		}
		function = d.Address
		if s.rng.IntN(3) == 0 {
			if !h.killVMM(t, h.vm(t, "cycled").Uid) {
				t.Fatal("the guest has no VMM")
			}
			h.waitStopped(t, "cycled", v1.VirtualMachine_STOP_REASON_LOST)
		} else {
			h.stop(t, "cycled", s.rng.IntN(2) == 0)
		}
		h.givenBack(t, function)
		h.link(t, "without settings of the guest's", func(l *v1.Link) bool {
			f := l.Functions[0]
			return f.VirtualMachine == "" && f.Settings.GetMacAddress() == ""
		})
		h.consistent(t)
	}
	if after := h.open(t); after.core > before.core+8 || after.control > before.control+8 {
		t.Errorf("descriptors of core and control: %+v, then %+v", before, after)
	}
	if now := h.iommuFaults(t); now != faults {
		t.Errorf("the IOMMU has met %d faults, then %d", faults, now)
	}
}

// givenBack waits until nothing is left of devices that a guest has had: no record, no open file,
// no driver of guests'. They do no DMA.
func (h *host) givenBack(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		h.pciDevice(t, name, "nobody's", func(d *v1.PciDevice) bool { return d.Owner == "" && d.Driver != "vfio-pci" })
		if d := h.pciDevice(t, name, "there", func(*v1.PciDevice) bool { return true }); d.Driver == "" && h.busMaster(t, name) {
			t.Errorf("%s may still do DMA", name)
		}
		eventually(t, "record of "+name, "false", func() string {
			return fmt.Sprint(strings.Contains(h.shell(t, "ls /run/ashlar/devices"), strings.TrimPrefix(name, "pciDevices/")))
		})
	}
	eventually(t, "core's open files of devices", "none", func() string {
		all := h.shell(t, "ls -l /proc/"+strings.Join(h.pids(t, "ashlar-core"), "")+"/fd")
		if strings.Contains(all, "vfio") || strings.Contains(all, "/dev/iommu") {
			return all
		}
		return "none"
	})
}

// iommuFaults is how many accesses the IOMMU has refused since the host was started, as the
// kernel's log has them.
func (h *host) iommuFaults(t testing.TB) int {
	t.Helper()
	return strings.Count(h.shell(t, "dmesg | grep DMAR"), "fault addr")
}
