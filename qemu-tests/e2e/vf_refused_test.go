package e2e

import (
	"slices"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// Virtual functions that a guest cannot have are refused with the reason and the device concerned,
// and the next try with what was missing succeeds.
func TestVirtualFunctionsRefused(t *testing.T) {
	h := sharedHost(t)
	h.withFunctions(t, "holder", "late", "fast")
	link := h.link(t, "up, with its functions", func(l *v1.Link) bool { return l.Carrier && len(l.Functions) == 2 })
	pf := link.PciDevice
	is := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s is refused for %q, want %q", what, got, want)
		}
	}
	is("a card that has functions", h.refusedFor(t, &v1.HostDevice{Device: pf}), "HAS_VIRTUAL_FUNCTIONS "+pf)
	hosts := wired()
	hosts.VirtualFunction.MacAddress = lab.ManagementMAC
	nic := usedAs(t, h.pciDevices(t), v1.PciDevice_USE_MANAGEMENT_NIC)
	is("the address of the host's own card", h.refusedFor(t, hosts), "MAC_IN_USE "+nic.Name)

	h.create(t, "holder", given(wired(), wired()))
	h.create(t, "late", given(wired()))
	h.boot(t, "holder")
	is("one function more than there are", h.startRefusedFor(t, "late"), "NO_FREE_VIRTUAL_FUNCTION "+pf)
	h.stop(t, "holder", true)

	fast := wired()
	fast.VirtualFunction.MaxRateMbps = 2000
	h.create(t, "fast", given(fast))
	is("more than the card can send", h.startRefusedFor(t, "fast"), "SETTINGS_REFUSED "+pf)

	// A card that is off is switched on; one without a carrier is of no use.
	carrier := func(up bool) {
		t.Helper()
		if _, err := h.QMP("set_link", map[string]any{"name": lab.WiredDevice, "up": up}); err != nil {
			t.Fatal(err)
		}
	}
	off := func() { h.shell(t, "ip link set dev "+strings.TrimPrefix(link.Name, "links/")+" down") }
	t.Cleanup(func() { carrier(true) })
	off()
	carrier(false)
	is("a link without a carrier", h.startRefusedFor(t, "late"), "NO_CARRIER "+pf)
	if vm := h.vm(t, "late"); vm.State != v1.VirtualMachine_STATE_STOPPED {
		t.Errorf("what was refused is %v", vm.State)
	}
	carrier(true)
	off()
	h.boot(t, "late")
	h.link(t, "on, with the guest's function", func(l *v1.Link) bool {
		return l.Up && l.Carrier && slices.ContainsFunc(l.Functions, func(f *v1.Link_Function) bool { return f.VirtualMachine == "virtualMachines/late" })
	})
}
