package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

const (
	// erringID is QEMU's name of a network card and erringMAC its address; erringPort is that of
	// its port, which reports errors (AER).
	erringID, erringPort = "erring", "rp5"
	erringMAC            = "52:54:00:a5:00:03"
	// tornSerial is the serial number of an NVMe disk in a slot that has no power controller: whoever
	// takes it out need not ask.
	tornSerial = "ashlar-torn"
	// namespaceSize is that of each namespace of the controller with virtual functions, and of that disk.
	namespaceSize = 16 << 20
)

// faultyDevices are options of QEMU for a host with PCI Express' own hot-plug, as most servers
// have it, a card that reports errors, and an NVMe controller with virtual functions.
func faultyDevices(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, name := range []string{"ns1", "ns2", "torn"} {
		f := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f, namespaceSize); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return slices.Concat([]string{
		"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
		"-device", "pcie-root-port,id=" + erringPort + ",chassis=5", "-netdev", "user,id=" + erringID + "net,net=10.0.4.0/24",
		"-device", "e1000e,id=" + erringID + ",bus=" + erringPort + ",netdev=" + erringID + "net,romfile=,mac=" + erringMAC,
		"-device", "pcie-root-port,id=rp6,chassis=6,power_controller_present=off", "-drive", "if=none,id=torn,format=raw,file=" + files[2],
		"-device", "nvme,bus=rp6,drive=torn,serial=" + tornSerial,
	}, lab.Controller(files[:2]...))
}

// A guest has a virtual function of a network card and one of an NVMe controller. Its VMM is killed while
// both do DMA: they do none then, and another guest has them. A device of that one reports
// errors, and two are taken out of the host; it goes on without them.
func TestDeviceFaults(t *testing.T) {
	h := newHost(t, options{args: faultyDevices(t)})
	storage := h.storageFunction(t)
	h.mustCtl(t, "device", "set-vfs", wiredName, "1")
	h.create(t, "first", given(wired(), &v1.HostDevice{Device: storage}))
	h.boot(t, "first")
	c, _ := h.onWire(t, "first")
	disk := "/dev/" + c.until("disk "+lab.ControllerSerial, true)
	c.ask("write " + disk + " 7 8")
	c.ask("check " + disk + " 7 8")
	h.killedUnderDMA(t, c, disk)

	torn := h.pciDevice(t, "pciDevices/nvme-"+strings.ReplaceAll(tornSerial, "-", "_"), "the host's", ofHost)
	erring := "pciDevices/mac-" + strings.ReplaceAll(erringMAC, ":", "")
	h.create(t, "second", given(wired(), &v1.HostDevice{Device: storage}, &v1.HostDevice{Device: erring}, &v1.HostDevice{Device: torn.Name}))
	h.boot(t, "second")
	c, _ = h.onWire(t, "second")
	disk = "/dev/" + c.until("disk "+lab.ControllerSerial, true)
	c.ask("check " + disk + " 7 8")
	vmm := h.pids(t, "ashlar-vmm")
	well := func(after string) {
		t.Helper()
		c.ask("ping " + wireGateway)
		c.ask("check " + disk + " 7 8")
		if vm, now := h.vm(t, "second"), h.pids(t, "ashlar-vmm"); vm.State != v1.VirtualMachine_STATE_RUNNING || !slices.Equal(now, vmm) || vm.Devices[0].Fault != "" || vm.Devices[1].Fault != "" {
			t.Errorf("%s the guest is %v, its VMM %v and was %v, its devices %v", after, vm.State, now, vmm, vm.Devices)
		}
	}
	h.reportsErrors(t, c)
	well("after errors of a device")

	c.ask("reread /dev/" + c.until("disk "+tornSerial, true))
	h.tear(t, torn)
	h.faultOf(t, "second", 3, takenAway...)
	c.until("disk "+tornSerial, false)
	h.gone(t, torn.Name)
	well("after a device was torn out")

	if _, err := h.QMP("device_del", map[string]string{"id": erringID}); err != nil {
		t.Fatal(err)
	}
	c.until("nic "+erringMAC, false)
	h.gone(t, erring)
	h.faultOf(t, "second", 2, takenAway...)
	well("after a device was taken out in order")

	devices := h.vm(t, "second").Devices
	h.stop(t, "second", false)
	h.givenBack(t, devices[0].Address, devices[1].Address)
	h.consistent(t)
	t.Logf("at the end the IOMMU has met %d faults", h.iommuFaults(t))
}

// storageFunction has the NVMe controller make virtual functions, each with a namespace, and names
// the first.
func (h *host) storageFunction(t testing.TB) string {
	t.Helper()
	all := h.pciDevices(t)
	i := slices.IndexFunc(all, func(d *v1.PciDevice) bool { return d.NvmeSerialNumber == lab.ControllerSerial })
	if i < 0 {
		t.Fatalf("the host has no NVMe controller %s: %v", lab.ControllerSerial, all)
	}
	h.mustCtl(t, "device", "set-vfs", strings.TrimPrefix(all[i].Name, "pciDevices/"), "2", "--namespaces", "1,2")
	d := h.pciDevice(t, all[i].Name, "one with functions", func(d *v1.PciDevice) bool { return len(d.Sriov.VirtualFunctions) == 2 })
	return d.Sriov.VirtualFunctions[0]
}

// killedUnderDMA kills the VMM of a guest whose disk and network card are busy. No access of theirs
// is seen after that, and they may make none.
func (h *host) killedUnderDMA(t testing.TB, c *console, disk string) {
	t.Helper()
	vm := h.vm(t, c.id)
	c.ask("flood " + c.ask("nic "+vm.Devices[0].VirtualFunction.GetMacAddress()) + " " + wireGateway + ":9")
	c.ask("reread " + disk)
	for _, device := range []string{"nvme", "eth"} {
		first := c.ask("interrupts " + device)
		eventually(t, device+" is idle", "false", func() string { return strconv.FormatBool(c.ask("interrupts "+device) == first) })
	}
	before := h.iommuFaults(t)
	if !h.killVMM(t, vm.Uid) {
		t.Fatalf("%s has no VMM", c.id)
	}
	h.waitStopped(t, c.id, v1.VirtualMachine_STOP_REASON_LOST)
	h.givenBack(t, vm.Devices[0].Address, vm.Devices[1].Address)
	after := h.iommuFaults(t)
	t.Logf("the IOMMU had met %d faults before the VMM was killed, and %d when its devices were back", before, after)
	if after != before {
		t.Errorf("devices of a VMM that was killed went on: %s", h.shell(t, "dmesg | grep DMAR"))
	}
}

// reportsErrors has the link of the second guest's third device report a corrected error, which is nobody's
// business, and then one that is not corrected.
func (h *host) reportsErrors(t testing.TB, c *console) {
	t.Helper()
	h.reportsError(t, "BAD_TLP")
	eventually(t, "the host's log", "Correct", func() string { return h.shell(t, "dmesg | grep AER:") })
	if d := h.vm(t, c.id).Devices[2]; d.Fault != "" {
		t.Errorf("a corrected error is told as %q", d.Fault)
	}
	h.reportsError(t, "COMP_TIME")
	h.faultOf(t, c.id, 2, "AER")
	if d := h.vm(t, c.id).Devices[2]; d.FaultTime == nil {
		t.Errorf("the error has no time: %v", d)
	}
	// After one that is fatal the kernel resets all behind the port, while the guest has it.
	h.reportsError(t, "MALF_TLP")
	eventually(t, "the host's log", "link has been reset", func() string { return h.shell(t, "dmesg | grep AER:") })
	eventually(t, "errors that the VMM has been told of", "2", func() string { return fmt.Sprint(h.counters(t, c.id).Devices["vfio2.errors"]) })
}

// reportsError has the port of the card report an error (QEMU's pcie_aer_inject_error). QEMU's cards
// report none themselves: they have no bits for it in Device Control.
func (h *host) reportsError(t testing.TB, what string) {
	t.Helper()
	out, err := h.Monitor("pcie_aer_inject_error " + erringPort + " " + what)
	if err != nil || !strings.Contains(out, "OK") {
		t.Fatalf("inject %s: %v, %s", what, err, out)
	}
}

// takenAway are what is told of a device that the host takes away: by its VMM, and by core.
var takenAway = []string{"the host wants it back", "it is gone", "it was taken out"}

// faultOf waits until a fault of a device of a guest's has one of these in it.
func (h *host) faultOf(t testing.TB, id string, number int, want ...string) {
	t.Helper()
	eventually(t, "the device", "told: ", func() string {
		d := h.vm(t, id).Devices[number]
		if slices.ContainsFunc(want, func(w string) bool { return strings.Contains(d.Fault, w) }) {
			return "told: " + d.Fault
		}
		return d.String()
	})
}

// gone waits until the host has a device no more.
func (h *host) gone(t testing.TB, name string) {
	t.Helper()
	eventually(t, name, "not_found", func() string {
		_, err := h.Devices.GetPciDevice(within(t, time.Minute), connect.NewRequest(&v1.GetPciDeviceRequest{Name: name}))
		return connect.CodeOf(err).String()
	})
}

// Registers of configuration space, and bits (PCI Express Base Specification, 7.5).
const (
	regCommand    = 4
	commandMaster = 1 << 2
	regFirst      = 0x34 // capability
	capExpress    = 0x10
	slotControl   = 0x18 // in that capability
	powerOff      = 1<<10 | 3<<8
	indicators    = 3<<6 | 3<<8
)

// configSpace is the first part of a device's configuration space.
func (h *host) configSpace(t testing.TB, name string) []byte {
	t.Helper()
	dump := h.shell(t, "dd if=/sys/bus/pci/devices/"+strings.TrimPrefix(name, "pciDevices/")+"/config bs=256 count=1 2>/dev/null | hexdump")
	var b []byte
	for line := range strings.Lines(dump) {
		_, text, _ := strings.Cut(line, "  ") // behind the address
		text, _, _ = strings.Cut(text, "|")
		row, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			t.Fatalf("configuration space of %s: %q: %v", name, line, err)
		}
		b = append(b, row...)
	}
	if len(b) != 256 {
		t.Fatalf("configuration space of %s: %d bytes of %q", name, len(b), dump)
	}
	return b
}

func word(space []byte, at int) uint16 { return binary.LittleEndian.Uint16(space[at:]) }

// busMaster tells whether a device may do DMA.
func (h *host) busMaster(t testing.TB, name string) bool {
	t.Helper()
	return h.configSpace(t, name)[regCommand]&commandMaster != 0
}

// tear takes a device out without a word to the host's kernel before: QEMU does that when power and
// indicator of its slot are switched off.
func (h *host) tear(t testing.TB, d *v1.PciDevice) {
	t.Helper()
	b := h.configSpace(t, d.Parent)
	at := int(b[regFirst])
	for hops := 0; b[at] != capExpress; hops++ {
		if at = int(b[at+1]); at == 0 || at > len(b)-slotControl-2 || hops > 48 {
			t.Fatalf("%s has no PCI Express capability", d.Parent)
		}
	}
	at += slotControl
	if err := h.WriteConfig(strings.TrimPrefix(d.Parent, "pciDevices/"), at, word(b, at)&^indicators|powerOff); err != nil {
		t.Fatal(err)
	}
}
