//go:build roottest && hardware

package guesttest

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// kind is what these tests show, and every the -test.run that runs them all.
const (
	kind  = jailtest.Devices
	every = "^Test(VFIO|HostDevice)" // of roottest's TestHardware
)

// recorded are the tests whose VMMs are recorded, those with slots.
var recorded = []string{"TestVFIODisk", "TestVFIOHotplug", "TestVFIORemoval"}

const (
	functions   = "/sys/bus/pci/devices/"
	classNVMe   = "0x010802"
	classNIC    = "0x020000"
	classMemory = "0x050000"
	classUSB    = "0x0c0330"
	diskText    = "ashlar-passthrough" // roottest.DiskText
)

// function finds the first function of a class on the host.
func function(t *testing.T, class string) string {
	t.Helper()
	return allFunctions(t, class, 1)[0]
}

// allFunctions finds the functions of a class on the host, of which there are to be some.
func allFunctions(t *testing.T, class string, least int) (addresses []string) {
	t.Helper()
	names, err := filepath.Glob(functions + "*/class")
	must(t, err)
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == class {
			addresses = append(addresses, filepath.Base(filepath.Dir(name)))
		}
	}
	if len(addresses) < least {
		t.Fatalf("the host has the functions %q of class %s, want %d", addresses, class, least)
	}
	return addresses
}

func write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(text), 0o200))
}

// bind gives a function to vfio-pci, whoever has it, until the test ends.
func bind(t *testing.T, address string) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := os.Stat(functions + address); err != nil {
			return // a virtual function that is gone
		}
		write(t, functions+address+"/driver_override", "\n")
		if _, err := os.Stat("/sys/bus/pci/drivers/vfio-pci/" + address); err == nil {
			write(t, "/sys/bus/pci/drivers/vfio-pci/unbind", address)
		}
		write(t, "/sys/bus/pci/drivers_probe", address)
	})
	write(t, functions+address+"/driver_override", "vfio-pci")
	driver, err := filepath.EvalSymlinks(functions + address + "/driver")
	if err == nil && filepath.Base(driver) == "vfio-pci" {
		return
	}
	if err == nil {
		write(t, driver+"/unbind", address)
	}
	write(t, "/sys/bus/pci/drivers_probe", address)
}

// file opens the device file of a function.
func file(t *testing.T, address string) *os.File {
	t.Helper()
	names, err := filepath.Glob(functions + address + "/vfio-dev/vfio*")
	must(t, err)
	if len(names) != 1 {
		t.Fatalf("%s has device files %q", address, names)
	}
	f, err := os.OpenFile("/dev/vfio/devices/"+filepath.Base(names[0]), os.O_RDWR, 0)
	must(t, err)
	return f
}

// passed starts a guest with devices of the host's, that does what vfio=WHAT stands for.
func passed(t *testing.T, slots int, what, more string, devices func(b *builder) *protocol.VFIO) *live {
	t.Helper()
	b := &builder{t: t, spec: protocol.Spec{Name: "vfio", VCPUs: 1, MemoryBytes: memorySize, HotplugSlots: slots}}
	i := b.add(os.Open(initramfs))
	b.spec.Boot = protocol.Boot{
		Kernel: b.add(os.Open(kernel)), Initramfs: &i,
		Cmdline: fmt.Sprintf("console=ttyS0 panic=-1 quiet vfio=%s text=%s %s", what, diskText, more),
	}
	b.spec.VFIO = devices(b)
	begin := startVMM
	if slots > 0 {
		begin = startMarked
	}
	v := b.startIn(begin(t))
	t.Cleanup(func() { // the next test wants the device
		v.cmd.Process.Kill()
		v.cmd.Wait()
	})
	return &live{vmm: v, lines: bufio.NewScanner(v.console())}
}

// byFile is one device by its file.
func byFile(address string, slot bool) func(b *builder) *protocol.VFIO {
	return func(b *builder) *protocol.VFIO {
		iommufd, f := b.add(os.OpenFile("/dev/iommu", os.O_RDWR, 0)), b.add(file(b.t, address), nil)
		return &protocol.VFIO{IOMMUFD: &iommufd, Devices: []protocol.VFIODevice{{Address: address, File: &f, Slot: slot}}}
	}
}

// byGroup is one device by its group.
func byGroup(address string) func(b *builder) *protocol.VFIO { return byGroups(true, address) }

// byGroups are devices by their groups, which reach each other or not.
func byGroups(peerToPeer bool, addresses ...string) func(b *builder) *protocol.VFIO {
	return func(b *builder) *protocol.VFIO {
		container := b.add(os.OpenFile("/dev/vfio/vfio", os.O_RDWR, 0))
		v := &protocol.VFIO{Container: &container, PeerToPeer: peerToPeer}
		for i, address := range addresses {
			group, err := filepath.EvalSymlinks(functions + address + "/iommu_group")
			must(b.t, err)
			id, err := strconv.Atoi(filepath.Base(group))
			must(b.t, err)
			f := b.add(os.OpenFile(fmt.Sprintf("/dev/vfio/%d", id), os.O_RDWR, 0))
			v.Devices = append(v.Devices, protocol.VFIODevice{Number: i, Address: address, GroupID: id, Group: &f})
		}
		return v
	}
}

// passes has the guest do all it is to, and checks what the device has counted.
func (l *live) passes() {
	l.t.Helper()
	l.says("guest: passed")
	l.ended()
}

// TestVFIODisk: a guest reads and writes a disk through a controller of the host's, by each
// interface and each kind of interrupts, on bus 0 and behind a root port.
func TestVFIODisk(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	for _, tt := range []struct {
		name    string
		slots   int
		more    string
		devices func(b *builder) *protocol.VFIO
	}{
		{"file, MSI-X", 0, "interrupts=MSIX", byFile(address, false)},
		{"file, in a slot", 1, "interrupts=MSIX", byFile(address, true)},
		{"group, peer to peer, INTx", 0, "interrupts=IO-APIC pci=nomsi", byGroup(address)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := passed(t, tt.slots, "disk", tt.more, tt.devices)
			l.says("vfio: disk works")
			r, _ := l.call(protocol.Request{Method: protocol.CountersMethod})
			for _, name := range protocol.VFIOCounters() {
				t.Logf("%s = %d", name, r.Counters.Devices["vfio0."+name])
			}
			l.passes()
		})
	}
}

// TestVFIONoReset: a device that cannot be reset is used as it is, by who may do that. A group
// resets no bus.
func TestVFIONoReset(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	write(t, functions+address+"/reset_method", "\n")
	defer write(t, functions+address+"/reset_method", "default")
	l := passed(t, 0, "disk", "interrupts=MSIX", func(b *builder) *protocol.VFIO {
		v := byGroup(address)(b)
		v.Devices[0].NoReset = true
		return v
	})
	l.says("vfio: disk works")
	l.passes()
}

// TestVFIOHotplug attaches a controller, takes it away, attaches it again and tears it away, by
// each interface.
func TestVFIOHotplug(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	for _, tt := range []struct {
		name    string
		devices func(b *builder) *protocol.VFIO
	}{
		{"file", byFile(address, false)},
		{"group", byGroup(address)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := passed(t, 1, "hotplug", "interrupts=MSIX", func(*builder) *protocol.VFIO { return &protocol.VFIO{} })
			l.says("vfio: up")
			attach := func(number int) {
				b := &builder{t: t}
				v := tt.devices(b)
				v.Devices[0].Number = number
				begin := time.Now()
				l.call(protocol.Request{Method: protocol.AttachVFIO, NewVFIO: &protocol.NewVFIO{
					IOMMUFD: v.IOMMUFD, Container: v.Container, Device: v.Devices[0],
				}}, b.files...)
				t.Logf("attached, with %d MiB mapped, after %v", memorySize>>20, time.Since(begin))
				seqpacket.CloseAll(b.files)
			}
			attach(3)
			l.says("vfio: disk works")
			l.call(protocol.Request{Method: protocol.Detach, Device: "vfio3"})
			l.says("vfio: disk left")
			l.without("vfio3")
			attach(4)
			l.says("vfio: disk works again")
			l.says("vfio: disk busy")
			l.call(protocol.Request{Method: protocol.Detach, Device: "vfio4", Force: true})
			l.says("vfio: disk torn away")
			l.without("vfio4")
			l.passes()
		})
	}
}

// events waits for the kinds of events that a device has had.
func (l *live) events(want ...protocol.DeviceEventKind) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		r, _ := l.call(protocol.Request{Method: protocol.Query})
		var got []protocol.DeviceEventKind
		for _, e := range r.Status.DeviceEvents {
			got = append(got, e.Kind)
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("events %q, want %q", got, want)
		}
	}
}

// TestVFIORemoval: the host takes a device from a guest that is using it, from bus 0 and from a
// slot. The guest goes on.
func TestVFIORemoval(t *testing.T) {
	address := function(t, classNVMe)
	for _, slots := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d slots", slots), func(t *testing.T) {
			bind(t, address)
			l := passed(t, slots, "removal", "interrupts=MSIX nvme_core.io_timeout=5 nvme_core.admin_timeout=5", byFile(address, slots > 0))
			l.says("vfio: disk busy")
			gone := make(chan error, 1)
			go func() {
				gone <- os.WriteFile("/sys/bus/pci/drivers/vfio-pci/unbind", []byte(address), 0o200)
			}()
			l.events(protocol.DeviceRequested, protocol.DeviceGone)
			must(t, <-gone)
			l.passes()
		})
	}
}

// TestVFIOMemory: memory comes and goes in a guest that has a device, for the device too.
func TestVFIOMemory(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	const more = 128 << 20
	l := passed(t, 0, "memory", "interrupts=MSIX memhp_default_state=online_movable", func(b *builder) *protocol.VFIO {
		b.spec.Pluggable = &protocol.Pluggable{MaxBytes: more}
		return byFile(address, false)(b)
	})
	l.says("vfio: disk works")
	l.call(protocol.Request{Method: protocol.SetMemory, PluggedBytes: more})
	l.says("vfio: disk works with more")
	if r, _ := l.call(protocol.Request{Method: protocol.MemoryMethod}); r.Memory.PluggedBytes != more {
		t.Errorf("%d bytes are plugged in, want %d", r.Memory.PluggedBytes, more)
	}
	l.call(protocol.Request{Method: protocol.SetMemory})
	l.passes()
}

// TestVFIOHostile: whatever a guest writes to configuration space, its VMM goes on.
func TestVFIOHostile(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	l := passed(t, 0, "hostile", "interrupts=MSIX", byFile(address, false))
	l.says("vfio: abused")
	if r, _ := l.call(protocol.Request{Method: protocol.Query}); r.Status.State != protocol.Running {
		t.Errorf("the guest is %s: %s", r.Status.State, r.Status.Message)
	}
	r, _ := l.call(protocol.Request{Method: protocol.CountersMethod})
	if r.Counters.Devices["vfio0.config_refused"] == 0 {
		t.Error("nothing of what it wrote was refused")
	}
	l.call(protocol.Request{Method: protocol.Stop})
	must(t, l.cmd.Wait())
}

// TestVFIOOutside: a device reaches nothing but its guest's memory. The host's kernel tells of each
// attempt, and the disk works in the next guest.
func TestVFIOOutside(t *testing.T) {
	address := function(t, classNVMe)
	bind(t, address)
	before := iommuFaults(t, address)
	l := passed(t, 0, "outside", "interrupts=MSIX", byFile(address, false))
	l.says("vfio: disk reads from outside")
	l.passes()
	if now := iommuFaults(t, address); now == before {
		t.Errorf("the IOMMU has refused nothing of %s", address)
	}
	l = passed(t, 0, "disk", "interrupts=MSIX", byFile(address, false))
	l.says("vfio: disk works")
	l.passes()
}

// TestVFIOPeerToPeer: of two devices of a guest one writes to memory of the other where they may
// reach each other. Where they may not, nothing arrives and the IOMMU has refused it.
func TestVFIOPeerToPeer(t *testing.T) {
	pair := allFunctions(t, classNVMe, 2)[:2]
	for _, address := range pair {
		bind(t, address)
	}
	before := iommuFaults(t, pair[0])
	l := passed(t, 0, "peer", "interrupts=MSIX", byGroups(true, pair...))
	l.says("vfio: peer reached")
	l.passes()
	if now := iommuFaults(t, pair[0]); now != before {
		t.Errorf("the IOMMU has refused %d accesses", now-before)
	}
	l = passed(t, 0, "no-peer", "interrupts=MSIX", byGroups(false, pair...))
	l.says("vfio: peer not reached")
	l.passes()
	if now := iommuFaults(t, pair[0]); now == before {
		t.Error("the IOMMU has refused nothing")
	}
}

// TestVFIOROM: a guest has the expansion ROM of a device only where that is asked for.
func TestVFIOROM(t *testing.T) {
	address := allFunctions(t, classNVMe, 2)[1]
	bind(t, address)
	for what, said := range map[string]string{"rom": "ROM read", "no-rom": "no ROM"} {
		l := passed(t, 0, what, "", func(b *builder) *protocol.VFIO {
			v := byFile(address, false)(b)
			v.Devices[0].ROM = what == "rom"
			return v
		})
		l.says("vfio: " + said)
		l.passes()
	}
}

// TestVFIOMSI: a device sends four messages of MSI, by as many interrupts of its guest.
func TestVFIOMSI(t *testing.T) {
	address := function(t, classUSB)
	bind(t, address)
	l := passed(t, 0, "msi", "", byFile(address, false))
	l.says("vfio: messages came")
	l.passes()
}

// TestBigBAR: a guest has all of a BAR of 16 GiB.
func TestBigBAR(t *testing.T) {
	address := function(t, classMemory)
	bind(t, address)
	l := passed(t, 0, "big", fmt.Sprintf("size=%d", 16<<30), byFile(address, false)) // roottest.BigBAR
	l.says("vfio: big BAR works")
	l.passes()
}

// iommuFaults is how many accesses of a device the IOMMU has refused, as the kernel's log has them.
func iommuFaults(t *testing.T, address string) (n int) {
	t.Helper()
	b := make([]byte, 1<<20)
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	must(t, err)
	for line := range strings.Lines(string(b[:size])) {
		if strings.Contains(line, "DMAR") && strings.Contains(line, strings.TrimPrefix(address, "0000:")) && strings.Contains(line, "fault addr") {
			t.Logf("%s", line)
			n++
		}
	}
	return n
}

// TestVFIONetwork: a guest has a virtual function of a NIC.
func TestVFIONetwork(t *testing.T) {
	pf := function(t, classNIC)
	names, err := filepath.Glob(functions + pf + "/net/*")
	must(t, err)
	if len(names) != 1 {
		t.Fatalf("%s has interfaces %q", pf, names)
	}
	up(t, filepath.Base(names[0]))
	carrier := func() bool {
		b, err := os.ReadFile(names[0] + "/carrier")
		return err == nil && strings.TrimSpace(string(b)) == "1"
	}
	for end := time.Now().Add(patience); !carrier(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the NIC has no carrier")
		}
	}
	time.Sleep(3 * time.Second) // else the VFs stay in reset: this NIC says nothing of when it is ready
	write(t, functions+pf+"/sriov_drivers_autoprobe", "0")
	write(t, functions+pf+"/sriov_numvfs", "1")
	vf, err := filepath.EvalSymlinks(functions + pf + "/virtfn0")
	must(t, err)
	address := filepath.Base(vf)
	bind(t, address)
	t.Cleanup(func() {
		write(t, functions+pf+"/sriov_numvfs", "0")
		write(t, functions+pf+"/sriov_drivers_autoprobe", "1")
	})
	l := passed(t, 0, "network", "interrupts=MSIX", byFile(address, false))
	l.says("vfio: network works")
	l.passes()
}

// up brings an interface of the host up.
func up(t *testing.T, name string) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(s)
	r, err := unix.NewIfreq(name)
	must(t, err)
	r.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r))
}
