//go:build roottest

package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// plugs are the devices in the hot-plug slots of a peer.
type plugs struct {
	devices []protocol.PluggedDevice
	files   map[string][]*os.File
}

// answer does what r asks for.
func (p *plugs) answer(name string, r *protocol.Request, files []*os.File) *protocol.Error {
	device := r.Device
	switch {
	case r.NewDisk != nil:
		device = fmt.Sprintf("disk%d", r.NewDisk.Number)
		// All of it can be written, and no more.
		info, err := files[r.NewDisk.File].Stat()
		if err == nil {
			err = growth(files[r.NewDisk.File], info.Size())
		}
		if err != nil {
			return &protocol.Error{Code: protocol.Internal, Message: err.Error()}
		}
	case r.NewNIC != nil:
		device = fmt.Sprintf("nic%d", r.NewNIC.Number)
		if len(r.NewNIC.Pairs) != 1 {
			return &protocol.Error{Code: protocol.InvalidArgument, Field: "newNic.pairs", Message: "not one pair"}
		}
	}
	if r.Method != protocol.Detach {
		switch name {
		case "full":
			return &protocol.Error{Code: protocol.FailedPrecondition, Message: "no room"}
		case "frail":
			os.Exit(3)
		}
		if p.files == nil {
			p.files = make(map[string][]*os.File)
		}
		p.devices = append(p.devices, protocol.PluggedDevice{Name: device, Slot: len(p.devices) + 1})
		p.files[device] = files
		return nil
	}
	i := slices.IndexFunc(p.devices, func(d protocol.PluggedDevice) bool { return d.Name == device })
	if i < 0 {
		return &protocol.Error{Code: protocol.InvalidArgument, Field: "device", Message: "no such device"}
	}
	if name == "keeps" && !r.Force {
		p.devices[i].Detaching = true
		return nil
	}
	p.devices = slices.Delete(p.devices, i, i+1)
	for _, f := range p.files[device] {
		f.Close()
	}
	return nil
}

// slotted starts a guest with two hot-plug slots.
func (b *bench) slotted(t *testing.T, n int, name string) string {
	t.Helper()
	g := b.guest(name)
	g.HotplugSlots = 2
	if err := b.Start(t.Context(), b.create(t, n), g); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return id(n)
}

// taps are those of guests.
func taps(t *testing.T) (names []string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "gtap") {
			names = append(names, l.Name)
		}
	}
	return names
}

// has says which devices the VMM tells of.
func (b *bench) has(t *testing.T, guest string, want ...string) {
	t.Helper()
	devices, err := b.Devices(t.Context(), guest)
	if err != nil {
		t.Fatalf("Devices: %v", err)
	}
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("devices = %v, want %v", names, want)
	}
}

func wantCode(t *testing.T, err error, want hostcall.Code) {
	t.Helper()
	if code(err) != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

var secondNIC = hostcall.NIC{Number: 1, Network: "lan", MAC: "02:00:00:00:00:02"}

// TestHotplug attaches and detaches with a core in between that is started again.
func TestHotplug(t *testing.T) {
	b := newBench(t)
	guest := b.slotted(t, 1, "web")
	// Larger than all that the VMM had: it may write that much now.
	for range 2 { // again is no error
		if err := b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Size: 8 << 20}, nil); err != nil {
			t.Fatalf("AttachDisk: %v", err)
		}
		if err := b.AttachNIC(t.Context(), guest, secondNIC); err != nil {
			t.Fatalf("AttachNIC: %v", err)
		}
	}
	b.has(t, guest, "disk2", "nic1")
	if got := taps(t); len(got) != 2 {
		t.Errorf("taps = %v, want two", got)
	}
	wantCode(t, b.AttachDisk(t.Context(), guest, 3, hostcall.Disk{Size: 512}, nil), hostcall.FailedPrecondition)
	if b.c.Folders.HasDisk(guest, 3) {
		t.Error("a disk that was refused is left behind")
	}
	wantCode(t, b.Drop(t.Context(), guest, "disk2"), hostcall.FailedPrecondition)
	wantCode(t, b.Drop(t.Context(), guest, "nic1"), hostcall.FailedPrecondition)

	// The end of the old core, as in TestAdopt.
	b.lookup(guest).client.close()
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.restart(t)
	b.has(t, guest, "disk2", "nic1")
	if s := b.status(t, guest); !slices.Equal(s.NICs, []int{0, 1}) || len(s.Addresses) != 2 {
		t.Errorf("status of an adopted guest = %+v", s)
	}
	b.Leased(secondNIC.MAC, "10.80.0.3")
	if s := b.status(t, guest); s.Addresses[1] != "10.80.0.3" {
		t.Errorf("addresses = %v", s.Addresses)
	}
	for _, device := range []string{"disk2", "nic1"} {
		if err := b.Detach(t.Context(), guest, device, false); err != nil {
			t.Fatalf("Detach: %v", err)
		}
		for range 2 {
			if err := b.Drop(t.Context(), guest, device); err != nil {
				t.Fatalf("Drop: %v", err)
			}
		}
	}
	b.has(t, guest)
	if got := taps(t); len(got) != 1 {
		t.Errorf("taps = %v, want one", got)
	}
	if s := b.status(t, guest); !slices.Equal(s.NICs, []int{0}) || len(s.Addresses) != 1 {
		t.Errorf("status without the NIC = %+v", s)
	}
	if nics, err := b.c.Folders.Interfaces(guest); err != nil || len(nics) != 1 {
		t.Errorf("addresses kept = %v, %v", nics, err)
	}
	if b.c.Folders.HasDisk(guest, 2) {
		t.Error("the disk is left behind")
	}
	// Its address and its MAC are free for another.
	other := b.guest("other")
	other.NICs = []hostcall.NIC{secondNIC}
	if err := b.Start(t.Context(), b.create(t, 2), other); err != nil {
		t.Fatalf("Start: %v", err)
	}
}

// TestHotplugStopped changes a guest that does not run, and starts it with what it has.
func TestHotplugStopped(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	if err := b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Image: b.kernel, Size: 4096}, nil); err != nil {
		t.Fatalf("AttachDisk: %v", err)
	}
	wantCode(t, b.AttachNIC(t.Context(), guest, secondNIC), hostcall.FailedPrecondition)
	for _, device := range []string{"disk0", "nic0"} {
		if err := b.Drop(t.Context(), guest, device); err != nil {
			t.Fatalf("Drop: %v", err)
		}
	}
	g := b.guest("web")
	wantCode(t, b.Start(t.Context(), guest, g), hostcall.FailedPrecondition)
	g.Disks, g.DiskNumbers = []int64{8192, 4096}, []int{1, 2}
	g.NICs[0].Number = 5
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if got := taps(t); len(got) != 1 || !strings.HasSuffix(got[0], "-5") {
		t.Errorf("taps = %v, want one with number 5", got)
	}
	// It has no slots.
	wantCode(t, b.AttachDisk(t.Context(), guest, 3, hostcall.Disk{Size: 512}, nil), hostcall.FailedPrecondition)
	wantCode(t, b.Detach(t.Context(), guest, "disk1", true), hostcall.FailedPrecondition)
	wantCode(t, b.Drop(t.Context(), guest, "disk1"), hostcall.FailedPrecondition)
	wantCode(t, b.Drop(t.Context(), guest, "nic5"), hostcall.FailedPrecondition)
}

// TestHotplugRefused leaves nothing behind where a VMM does not take what it is given.
func TestHotplugRefused(t *testing.T) {
	b := newBench(t)
	guest := b.slotted(t, 1, "full")
	wantCode(t, b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Size: 8 << 20}, nil), hostcall.FailedPrecondition)
	wantCode(t, b.AttachNIC(t.Context(), guest, secondNIC), hostcall.FailedPrecondition)
	if b.c.Folders.HasDisk(guest, 2) || len(taps(t)) != 1 {
		t.Errorf("left behind: disk %v, taps %v", b.c.Folders.HasDisk(guest, 2), taps(t))
	}
	if nics, err := b.c.Folders.Interfaces(guest); err != nil || len(nics) != 1 {
		t.Errorf("addresses kept = %v, %v", nics, err)
	}
	wantCode(t, b.AttachNIC(t.Context(), guest, hostcall.NIC{Number: 1, Network: "none", MAC: secondNIC.MAC}), hostcall.InvalidArgument)
	wantCode(t, b.AttachNIC(t.Context(), guest, hostcall.NIC{Number: 8, Network: "lan", MAC: secondNIC.MAC}), hostcall.InvalidArgument)
	wantCode(t, b.AttachDisk(t.Context(), guest, 16, hostcall.Disk{Size: 512}, nil), hostcall.InvalidArgument)
	wantCode(t, b.Drop(t.Context(), guest, "../disk1"), hostcall.InvalidArgument)

	keeps := b.create(t, 2)
	g := b.guest("keeps")
	g.HotplugSlots, g.NICs = 2, nil
	if err := b.Start(t.Context(), keeps, g); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if err := errors.Join(b.AttachDisk(t.Context(), keeps, 2, hostcall.Disk{Size: 8 << 20}, nil), b.Detach(t.Context(), keeps, "disk2", false)); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.Drop(t.Context(), keeps, "disk2"), hostcall.FailedPrecondition)
	if err := errors.Join(b.Detach(t.Context(), keeps, "disk2", true), b.Drop(t.Context(), keeps, "disk2")); err != nil {
		t.Fatal(err)
	}
}

// TestHotplugVMMDies leaves what the next start, or the next Drop, takes up.
func TestHotplugVMMDies(t *testing.T) {
	b := newBench(t)
	guest := b.slotted(t, 1, "frail")
	wantCode(t, b.AttachNIC(t.Context(), guest, secondNIC), hostcall.Unavailable)
	b.wait(t, guest, hostcall.Stopped)
	if err := b.Drop(t.Context(), guest, "nic1"); err != nil {
		t.Fatalf("Drop: %v", err)
	}
	g := b.guest("frail")
	g.HotplugSlots = 1
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatalf("Start: %v", err)
	}
	wantCode(t, b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Size: 8 << 20}, nil), hostcall.Unavailable)
	b.wait(t, guest, hostcall.Stopped)
	if err := b.AttachDisk(t.Context(), guest, 2, hostcall.Disk{Size: 8 << 20}, nil); err != nil {
		t.Fatalf("AttachDisk: %v", err)
	}
}
