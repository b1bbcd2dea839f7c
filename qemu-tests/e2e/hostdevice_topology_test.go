package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// A host without an IOMMU, or with one that leaves interrupts alone, gives no device away and says
// what to do; nothing has changed then. Guests without devices run as ever.
func TestHostDeviceWithoutIsolation(t *testing.T) {
	for _, tt := range []struct{ iommu, reason, check, advice string }{
		{lab.WithoutIOMMU, "NO_IOMMU", "iommu", "VT-d or AMD-Vi"},
		{lab.WithoutRemapping, "NO_INTERRUPT_REMAPPING", "interrupt-remapping", "switch interrupt remapping on"},
	} {
		t.Run(tt.iommu, func(t *testing.T) {
			h := newHost(t, options{iommu: tt.iommu})
			disk := h.spareDisk(t)
			if got := disk.IommuGroup == nil; got != (tt.iommu == lab.WithoutIOMMU) {
				t.Errorf("without a group: %v, of %v", got, disk)
			}
			if got := h.checked(t)[tt.check]; got != "RESULT_WEAK" {
				t.Errorf("the check %s is %s", tt.check, got)
			}
			all := h.pciDevices(t)
			nic := all[slices.IndexFunc(all, func(d *v1.PciDevice) bool { return d.Sriov != nil })]
			want := []string{tt.reason + " " + disk.Name, tt.reason + " " + nic.Name}
			slices.Sort(want)
			if got := h.refusedFor(t, &v1.HostDevice{Device: disk.Name}, &v1.HostDevice{Device: nic.Name}); !slices.Equal(got, want) {
				t.Errorf("refused for %q, want %q", got, want)
			}
			h.create(t, "bare", given())
			h.boot(t, "bare")
			_, err := h.VirtualMachines.AttachVirtualMachineDevice(within(t, time.Minute), connect.NewRequest(&v1.AttachVirtualMachineDeviceRequest{
				Name: "virtualMachines/bare", Device: &v1.HostDevice{Device: disk.Name},
			}))
			if got, want := violations(t, err), []string{tt.reason + " " + disk.Name}; !slices.Equal(got, want) {
				t.Errorf("attached to a guest that runs it is refused for %q, want %q", got, want)
			}
			if out, err := h.ctl("vm", "create", "refused", "--kernel", "guest-kernel", "--device", strings.TrimPrefix(disk.Name, "pciDevices/")); err == nil || !strings.Contains(out, tt.advice) {
				t.Errorf("ashlarctl: %v, %s", err, out)
			}
			if vm := h.vm(t, "bare"); vm.State != v1.VirtualMachine_STATE_RUNNING || len(vm.Devices) != 0 {
				t.Errorf("the guest is %v, with %v", vm.State, vm.Devices)
			}
			h.pciDevice(t, disk.Name, "the host's, as it was", ofHost)
			h.consistent(t)
		})
	}
}
