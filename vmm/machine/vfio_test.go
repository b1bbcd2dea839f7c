package machine

import (
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// What real devices do is in the hardware tests of qemu-tests/roottest.

func TestVFIORefuses(t *testing.T) {
	const address = "0000:00:02.0"
	place := func(f protocol.File) *protocol.File { return &f }
	file := func(s *spec) *protocol.File { return place(s.add(newDiskFile(t), nil)) }
	for name, tt := range map[string]struct {
		code protocol.ErrorCode
		edit func(*spec)
	}{
		"vfio.devices[0].address": {protocol.InvalidArgument, func(s *spec) {
			s.VFIO = &protocol.VFIO{IOMMUFD: file(s), Devices: []protocol.VFIODevice{{File: file(s)}}}
		}},
		"vfio.devices[0].slot": {protocol.InvalidArgument, func(s *spec) {
			s.VFIO = &protocol.VFIO{IOMMUFD: file(s), Devices: []protocol.VFIODevice{{Address: address, Slot: true, File: file(s)}}}
		}},
		"disks": {protocol.InvalidArgument, func(s *spec) {
			s.Disks = make([]protocol.Disk, maxDisksAndNICs)
			s.VFIO = &protocol.VFIO{IOMMUFD: file(s), Devices: []protocol.VFIODevice{{Address: address, File: file(s)}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Spin())
			tt.edit(s)
			s.refused(t, tt.code, name)
		})
	}
	g := slotted(t, 1)
	err := g.AttachVFIO(&protocol.NewVFIO{IOMMUFD: place(0), Device: protocol.VFIODevice{Address: address, File: place(1)}},
		[]*os.File{newDiskFile(t), newDiskFile(t)})
	if err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("a guest without a VFIO was given a device: %+v", err)
	}
	if err := g.AttachVFIO(nil, nil); err == nil || err.Code != protocol.InvalidArgument {
		t.Errorf("attach nothing: %+v", err)
	}
}

func TestDeviceEvents(t *testing.T) {
	g := slotted(t, 1)
	w := &vfioWatch{m: g.Machine, name: "vfio0", address: "0000:00:02.0"}
	for range protocol.MaxDeviceEvents + 3 {
		w.failed()
	}
	w.wanted() // it has left by then
	w.wanted()
	got := g.Status().DeviceEvents
	first, last := got[0], got[len(got)-1]
	if len(got) != protocol.MaxDeviceEvents || first.Seq != 5 || last.Seq != protocol.MaxDeviceEvents+4 ||
		first.Kind != protocol.DeviceError || last.Kind != protocol.DeviceRequested || last.Address != w.address || last.Time.IsZero() {
		t.Errorf("%d events from %+v to %+v", len(got), first, last)
	}
}

// TestWindows: slots for BARs come and go, and never lie over memory.
func TestWindows(t *testing.T) {
	g := slotted(t, 1)
	f, err := memory.Create("bar", 2*memory.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := memory.MapDevice(f, 0, 2*memory.PageSize, 0, memory.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	w := &g.windows
	free := uint32(firstWindow + len(w.used)) // some are configuration spaces'
	const gpa = 0xd0000000
	for range 3 {
		first, err := w.AddSlot(gpa, memory.PageSize, d.HostAddr())
		if err != nil || first != free {
			t.Fatalf("slot %d: %v", first, err)
		}
		if _, err := w.AddSlot(gpa, memory.PageSize, d.HostAddr()); err == nil {
			t.Error("a slot lies over another")
		}
		if _, err := w.AddSlot(0, memory.PageSize, d.HostAddr()); err == nil {
			t.Error("a slot lies over memory")
		}
		second, err := w.AddSlot(gpa+memory.PageSize, memory.PageSize, d.HostAddr()+memory.PageSize)
		if err != nil || second != free+1 {
			t.Fatalf("slot %d: %v", second, err)
		}
		for _, slot := range []uint32{first, second} {
			if err := w.RemoveSlot(slot); err != nil {
				t.Error(err)
			}
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if n := len(g.mem.HostRegions()); n >= firstWindow {
		t.Errorf("memory has %d slots, those of BARs start at %d", n, firstWindow)
	}
	if VFIOFiles < kvm.MaxRoutes {
		t.Errorf("%d descriptors for %d interrupts", VFIOFiles, kvm.MaxRoutes)
	}
}
