package e2e

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// pciDevice waits until the device of a name is as it should be.
func (h *host) pciDevice(t testing.TB, name, what string, so func(*v1.PciDevice) bool) *v1.PciDevice {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r, err := h.Devices.GetPciDevice(within(t, time.Minute), connect.NewRequest(&v1.GetPciDeviceRequest{Name: name}))
		if err == nil && so(r.Msg) {
			return r.Msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: never %s: %v, %v", name, what, r, err)
		}
	}
}

// spareDisk is the disk that guests can be given whole, when the host has it.
func (h *host) spareDisk(t testing.TB) *v1.PciDevice {
	t.Helper()
	all := h.pciDevices(t)
	i := slices.IndexFunc(all, func(d *v1.PciDevice) bool { return d.NvmeSerialNumber == lab.SpareSerial })
	if i < 0 {
		t.Fatalf("the host has no NVMe disk %s: %v", lab.SpareSerial, all)
	}
	return all[i]
}

// wired is a device that stands for any virtual function of the lab's NIC.
func wired() *v1.HostDevice {
	return &v1.HostDevice{VirtualFunction: &v1.VirtualFunction{Links: []string{"links/" + wiredName}}}
}

// given describes the small guest with devices of the host's, and without a network interface.
func given(devices ...*v1.HostDevice) *v1.VirtualMachine {
	vm := testVM("")
	vm.NetworkInterfaces, vm.Devices = nil, devices
	return vm
}

func ofHost(d *v1.PciDevice) bool { return d.Driver == "nvme" && d.Owner == "" }

// violations are those of a refusal, as TYPE SUBJECT.
func violations(t testing.TB, err error) (got []string) {
	t.Helper()
	var ce *connect.Error
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !errors.As(err, &ce) {
		t.Fatalf("refused with %v, want FAILED_PRECONDITION", err)
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if f, ok := v.(*errdetails.PreconditionFailure); ok && err == nil {
			for _, one := range f.Violations {
				got = append(got, one.Type+" "+one.Subject)
			}
		}
	}
	slices.Sort(got)
	return got
}

// refusedFor asks for a virtual machine with these devices, which is refused, and for what.
func (h *host) refusedFor(t testing.TB, devices ...*v1.HostDevice) []string {
	t.Helper()
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	vm := &v1.VirtualMachine{Cpus: 1, MemoryBytes: 64 << 20, Boot: &v1.Boot{Kernel: "images/guest-kernel"}, Devices: devices}
	_, err := h.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.CreateVirtualMachineRequest{VirtualMachineId: "refused", VirtualMachine: vm}))
	if err == nil {
		h.remove(t, "refused")
	}
	return violations(t, err)
}

// startRefusedFor starts a virtual machine that cannot have its devices, and says why.
func (h *host) startRefusedFor(t testing.TB, id string) (got []string) {
	t.Helper()
	r, err := h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/" + id}))
	if err != nil {
		return violations(t, err)
	}
	op := h.finished(t, r.Msg)
	if op.GetError().GetCode() != "FAILED_PRECONDITION" {
		t.Fatalf("start of %s ends with %v, want FAILED_PRECONDITION", id, op.Error)
	}
	for _, v := range op.Error.Violations {
		got = append(got, v.Type+" "+v.Subject)
	}
	slices.Sort(got)
	return got
}

// A guest has a whole NVMe disk of the host's, past deaths of core and control; when it has
// stopped, or its VMM and core have died at once, the host's driver has the disk again.
func TestHostDevice(t *testing.T) {
	h := sharedHost(t)
	disk := h.spareDisk(t)
	address := strings.TrimPrefix(disk.Name, "pciDevices/")
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	make := func(id, device string) {
		h.mustCtl(t, "vm", "create", id, "--memory", "128MiB", "--kernel", "guest-kernel", "--initramfs", "testguest", "--cmdline", "console=ttyS0 quiet", "--device", device)
		t.Cleanup(func() { h.remove(t, id) })
	}
	make("whole", address)
	make("rival", "nvme-"+strings.ReplaceAll(lab.SpareSerial, "-", "_"))
	h.mustCtl(t, "vm", "start", "whole")
	c := h.console(t, "whole")
	c.expect("TESTGUEST ready", patience)
	block := func() string { return "/dev/" + c.until("disk "+lab.SpareSerial, true) }
	c.ask("write " + block() + " 7 8")
	vm := h.vm(t, "whole")
	h.pciDevice(t, disk.Name, "the guest's", func(d *v1.PciDevice) bool { return d.Driver == "vfio-pci" && d.Owner == vm.Name })
	if d := vm.Devices; len(d) != 1 || d[0].Address != disk.Name || !strings.HasPrefix(d[0].Device, "pciDevices/path-") || d[0].Fault != "" {
		t.Errorf("devices of the guest = %v", d)
	}
	if out, err := h.ctl("vm", "start", "rival"); err == nil || !strings.Contains(out, address+" is the virtual machine whole's") {
		t.Errorf("start of another one with it: %v, %s", err, out)
	}

	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	c = h.fresh(t, "whole")
	c.ask("check " + block() + " 7 8")
	h.pciDevice(t, disk.Name, "still the guest's", func(d *v1.PciDevice) bool { return d.Driver == "vfio-pci" && d.Owner == vm.Name })

	// It comes and goes while the guest runs.
	h.mustCtl(t, "vm", "detach-device", "whole", address, "--grace", "3m")
	c.until("disk "+lab.SpareSerial, false)
	h.pciDevice(t, disk.Name, "the host's after it was detached", ofHost)
	h.mustCtl(t, "vm", "attach-device", "whole", address)
	c.ask("check " + block() + " 7 8")

	h.stop(t, "whole", false)
	h.pciDevice(t, disk.Name, "the host's after a stop", ofHost)
	h.mustCtl(t, "vm", "start", "rival")
	c = h.console(t, "rival")
	c.expect("TESTGUEST ready", patience)
	c.ask("check " + block() + " 7 8")
	vmm := h.pids(t, "ashlar-vmm")
	core := h.pids(t, "ashlar-core")
	h.shell(t, "kill -9 "+strings.Join(append(core, vmm...), " "))
	h.waitStopped(t, "rival", v1.VirtualMachine_STOP_REASON_LOST)
	h.pciDevice(t, disk.Name, "the host's after core and VMM have died", ofHost)
}

// A device that the host loses while a guest has it is told of; the guest goes on.
func TestHostDeviceGone(t *testing.T) {
	h := sharedHost(t)
	disk := h.spareDisk(t)
	vm := testVM("")
	vm.Devices = []*v1.HostDevice{{Device: disk.Name}}
	h.create(t, "loser", vm)
	t.Cleanup(func() { h.remove(t, "loser") })
	h.boot(t, "loser")
	c := h.console(t, "loser")
	c.expect("TESTGUEST ready", patience)
	c.until("disk "+lab.SpareSerial, true)
	h.shell(t, "echo 1 > /sys/bus/pci/devices/"+strings.TrimPrefix(disk.Name, "pciDevices/")+"/remove")
	t.Cleanup(func() { h.shell(t, "echo 1 > /sys/bus/pci/rescan") })
	for deadline := time.Now().Add(patience); h.vm(t, "loser").Devices[0].Fault == ""; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is told of the device: %v", h.vm(t, "loser").Devices)
		}
	}
	if f := h.vm(t, "loser").Devices[0]; f.FaultTime == nil || h.vm(t, "loser").State != v1.VirtualMachine_STATE_RUNNING {
		t.Errorf("the device is %v, the guest %v", f, h.vm(t, "loser").State)
	}
	c.until("disk "+lab.SpareSerial, false)
	h.stop(t, "loser", false)
	if out, err := h.ctl("vm", "start", "loser"); err == nil || !strings.Contains(out, "plug it in again") {
		t.Errorf("start without the device: %v, %s", err, out)
	}
	h.shell(t, "echo 1 > /sys/bus/pci/rescan")
	h.pciDevice(t, disk.Name, "the host's when it is there again", ofHost)
}

// What cannot be given to a guest is refused with the reason and the devices concerned.
func TestHostDeviceRefused(t *testing.T) {
	h := sharedHost(t)
	all := h.pciDevices(t)
	var edu []*v1.PciDevice
	for _, d := range all {
		if d.VendorId<<16|d.DeviceId == lab.EduID {
			edu = append(edu, d)
		}
	}
	if len(edu) != 2 || edu[0].Parent == "" {
		t.Fatalf("the devices of one bus are %v", edu)
	}
	create := func(devices ...*v1.PciDevice) []string {
		t.Helper()
		var hd []*v1.HostDevice
		for _, d := range devices {
			hd = append(hd, &v1.HostDevice{Device: d.Name})
		}
		return h.refusedFor(t, hd...)
	}
	for _, u := range []v1.PciDevice_Use{v1.PciDevice_USE_BOOT_DISK, v1.PciDevice_USE_DATA_DISK, v1.PciDevice_USE_MANAGEMENT_NIC} {
		d := usedAs(t, all, u)
		if got := create(d); !slices.Contains(got, "USED_BY_HOST "+d.Name) {
			t.Errorf("%v is refused for %q", u, got)
		}
	}
	bridge := edu[0].Parent
	got := create(edu[0])
	for _, want := range []string{"GROUP_SHARED " + edu[1].Name, "ACS_MISSING " + bridge} {
		if !slices.Contains(got, want) {
			t.Errorf("one device of a bus is refused for %q, not %s", got, want)
		}
	}
	if got := create(edu...); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "GROUP_SHARED") }) {
		t.Errorf("all devices of a bus are refused for %q", got)
	}
	for _, d := range all {
		if d.Name == bridge {
			if got := create(d); !slices.Contains(got, "NOT_ASSIGNABLE "+bridge) {
				t.Errorf("a bridge is refused for %q", got)
			}
		}
	}
	disk := h.spareDisk(t)
	methods := "/sys/bus/pci/devices/" + strings.TrimPrefix(disk.Name, "pciDevices/") + "/reset_method"
	t.Cleanup(func() { h.shell(t, "echo default > "+methods) })
	h.shell(t, "echo > "+methods)
	if got, want := create(disk), []string{"NO_RESET " + disk.Name}; !slices.Equal(got, want) {
		t.Errorf("a disk that cannot be reset is refused for %q, want %q", got, want)
	}
	if out, err := h.ctl("vm", "create", "refused", "--kernel", "guest-kernel", "--device", strings.TrimPrefix(edu[0].Name, "pciDevices/")); err == nil || !strings.Contains(out, "give it to the virtual machine, too") {
		t.Errorf("ashlarctl: %v, %s", err, out)
	}
}
