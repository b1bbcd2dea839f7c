package machine

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Registers of the root port of slot 1, in ECAM, and what a driver puts into Slot Control.
const (
	slot1             = pci.PortDevice << 15
	slotControl       = slot1 + 0x58
	slotStatus        = slot1 + 0x5a
	switchOn, turnOff = 0x1121, 0x1721
	card1             = 1 << 20
)

// guestRead is what the guest reads at off in ECAM.
func guestRead(g *Guest, off uint64, n int) uint64 {
	var b [8]byte
	g.access(kvm.MMIO{GPA: arch.ECAMBase + off, Data: b[:n]})
	return binary.LittleEndian.Uint64(b[:])
}

func guestWrite(g *Guest, off uint64, n int, v uint64) {
	g.access(kvm.MMIO{GPA: arch.ECAMBase + off, Data: binary.LittleEndian.AppendUint64(nil, v)[:n], Write: true})
}

// newDiskFile makes a file for a disk. It is locked as long as anybody has it open.
func newDiskFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err == nil {
		err = f.Truncate(1 << 20)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// released waits until nobody has the file open, rings included.
func released(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() { done <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the disk's file is still open somewhere")
	}
}

// left waits until the guest has not got a device of that name.
func left(t *testing.T, g *Guest, name string) {
	t.Helper()
	has := func() bool {
		return slices.ContainsFunc(g.Status().Devices, func(d protocol.PluggedDevice) bool { return d.Name == name })
	}
	for end := time.Now().Add(20 * time.Second); has(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not leave", name)
		}
	}
}

func attachDisk(t *testing.T, g *Guest, number int) string {
	t.Helper()
	f := newDiskFile(t)
	name := f.Name()
	if err := g.AttachDisk(&protocol.Disk{Number: number}, []*os.File{f}); err != nil {
		t.Fatalf("attach disk%d: %s: %v", number, err.Field, err)
	}
	return name
}

// slotted is a guest with hot-plug slots that runs.
func slotted(t *testing.T, slots int) *Guest {
	t.Helper()
	s := newSpec(t, tinykernel.Code{}.Spin())
	s.HotplugSlots = slots
	s.Disks = []protocol.Disk{{Number: 7, File: s.add(newDiskFile(t), nil)}}
	g := s.loaded(t)
	start(t, g)
	return g
}

// The guest's accesses to the slot are made by the test.
func TestHotplug(t *testing.T) {
	g := slotted(t, 2)
	file := attachDisk(t, g, 3)
	want := []protocol.PluggedDevice{{Name: "disk7"}, {Name: "disk3", Slot: 1}}
	if got := g.Status().Devices; !slices.Equal(got, want) {
		t.Errorf("devices = %+v, want %+v", got, want)
	}
	if got := guestRead(g, slotStatus, 2); got != 0x148 {
		t.Errorf("slot status = %#x, want presence, and changes of that and the link", got)
	}
	guestWrite(g, slotControl, 2, switchOn)
	if got := guestRead(g, card1, 4); got != 0x10421af4 {
		t.Errorf("behind the port is %#x, want a virtio disk", got)
	}
	// All that names a disk means its number.
	if err := g.SetDiskLimits(3, &protocol.DiskLimits{OperationsPerSecond: 100}); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(file, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := g.ResizeDisk(3, 2<<20); err != nil {
		t.Error(err)
	}
	if err := g.ResizeDisk(0, 2<<20); err == nil || err.Field != "disk" {
		t.Errorf("resize of a disk that is not there: %+v", err)
	}
	if _, ok := g.Counters().Devices["disk3.throttled"]; !ok {
		t.Error("no counters of disk3")
	}
	if _, ok := g.Histograms()["disk3.read"]; !ok {
		t.Error("no histograms of disk3")
	}

	// Asked for, it stays until the guest has switched it off.
	if err := g.Detach("disk3", false); err != nil {
		t.Fatal(err)
	}
	want[1].Detaching = true
	if got := g.Status().Devices; !slices.Equal(got, want) {
		t.Errorf("devices = %+v, want %+v", got, want)
	}
	guestWrite(g, slotStatus, 2, 0x1ff)
	guestWrite(g, slotControl, 2, turnOff)
	left(t, g, "disk3")
	released(t, file)
	if got := guestRead(g, card1, 4); got != 0xffffffff {
		t.Errorf("an empty slot reads as %#x", got)
	}
	if _, ok := g.Counters().Devices["disk3.throttled"]; ok {
		t.Error("counters of a disk that is gone")
	}

	// The slot takes another, which is taken away though the guest uses it and is paused.
	file = attachDisk(t, g, 4)
	guestWrite(g, slotControl, 2, switchOn)
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := g.Detach("disk4", false); err != nil {
		t.Errorf("asking a paused guest: %v", err)
	}
	if err := g.Detach("disk4", true); err != nil {
		t.Fatal(err)
	}
	if got := guestRead(g, card1, 4); got != 0xffffffff {
		t.Errorf("a disk that was taken away reads as %#x", got)
	}
	left(t, g, "disk4")
	released(t, file)
	attachDisk(t, g, 5) // to a paused guest
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	guestWrite(g, slotControl, 2, turnOff) // what was pulled out
	guestWrite(g, slotControl, 2, switchOn)
	if got := guestRead(g, card1, 4); got != 0x10421af4 {
		t.Errorf("behind the port is %#x, want the disk of a guest that was paused", got)
	}
	g.Stop()
	<-g.Done()
	if err := g.Detach("disk5", true); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("detach from a guest that has stopped: %+v", err)
	}
	if got := g.Status().Devices; got != nil {
		t.Errorf("devices of a guest that has stopped: %+v", got)
	}
}

// A device that the guest has not switched on leaves without it, and may come and go as
// often as one likes, while the guest is paused and goes on.
func TestHotplugOften(t *testing.T) {
	g := slotted(t, 1)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for on := true; ; on = !on {
			select {
			case <-stop:
				return
			default:
			}
			guestWrite(g, slotControl, 2, map[bool]uint64{true: switchOn, false: turnOff}[on])
			g.Counters()
			if err := g.Pause(); err == nil {
				_ = g.Resume() // it is paused, by nobody else
			}
		}
	}()
	for i := 10; i < 60; i++ {
		attachDisk(t, g, i)
		if err := g.Detach(diskName(i), i%2 == 0); err != nil && err.Field != "device" {
			t.Fatal(err)
		}
		left(t, g, diskName(i))
	}
	close(stop)
	<-stopped
}

func TestHotplugRefuses(t *testing.T) {
	g := slotted(t, 1)
	tooLarge := protocol.Disk{Serial: "a serial of over twenty bytes"}
	for _, tt := range []struct {
		name, field string
		code        protocol.ErrorCode
		do          func() *protocol.Error
	}{
		{"no disk", "newDisk", protocol.InvalidArgument, func() *protocol.Error { return g.AttachDisk(nil, nil) }},
		{"no NIC", "newNic", protocol.InvalidArgument, func() *protocol.Error { return g.AttachNIC(nil, nil) }},
		{"no descriptor", "newDisk.file", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachDisk(&protocol.Disk{Number: 1}, nil)
		}},
		{"number", "newDisk.number", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachDisk(&protocol.Disk{Number: -1}, []*os.File{newDiskFile(t)})
		}},
		{"number that is taken", "newDisk.number", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachDisk(&protocol.Disk{Number: 7}, []*os.File{newDiskFile(t)})
		}},
		{"serial", "newDisk.serial", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachDisk(&tooLarge, []*os.File{newDiskFile(t)})
		}},
		{"limits", "newDisk.limits.burstBytes", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachDisk(&protocol.Disk{Limits: &protocol.DiskLimits{BurstBytes: 1}}, []*os.File{newDiskFile(t)})
		}},
		{"a file for a tap", "newNic", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachNIC(&protocol.NIC{MAC: "02:00:00:00:00:01", Pairs: []protocol.Pair{{}}}, []*os.File{newDiskFile(t)})
		}},
		{"MAC", "newNic.mac", protocol.InvalidArgument, func() *protocol.Error {
			return g.AttachNIC(&protocol.NIC{MAC: "x"}, nil)
		}},
		{"nothing of that name", "device", protocol.InvalidArgument, func() *protocol.Error { return g.Detach("disk9", false) }},
		{"the console", "device", protocol.InvalidArgument, func() *protocol.Error { return g.Detach("console", true) }},
		{"one from the start", "", protocol.FailedPrecondition, func() *protocol.Error { return g.Detach("disk7", true) }},
		{"full", "", protocol.FailedPrecondition, func() *protocol.Error {
			attachDisk(t, g, 0)
			return g.AttachDisk(&protocol.Disk{Number: 1}, []*os.File{newDiskFile(t)})
		}},
	} {
		if err := tt.do(); err == nil || err.Code != tt.code || err.Field != tt.field {
			t.Errorf("%s: %+v, want %s at %q", tt.name, err, tt.code, tt.field)
		}
	}
	for name, edit := range map[string]func(*spec){
		"hotplugSlots": func(s *spec) { s.HotplugSlots = protocol.MaxHotplugSlots + 1 },
		"disks": func(s *spec) {
			s.HotplugSlots, s.Disks = 1, make([]protocol.Disk, maxDisksAndNICs)
		},
		"disks[1].number": func(s *spec) {
			s.Disks = []protocol.Disk{{Number: 2, File: s.add(newDiskFile(t), nil)}, {Number: 2, File: s.add(newDiskFile(t), nil)}}
		},
		"nics[0].number": func(s *spec) { s.NICs = []protocol.NIC{{Number: maxNumber + 1}} },
	} {
		s := newSpec(t, tinykernel.Code{}.Spin())
		edit(s)
		if _, err := FromSpec(&s.Spec, s.files); err == nil || err.Field != name {
			t.Errorf("%s: %+v", name, err)
		}
	}
	none := newSpec(t, tinykernel.Code{}.Spin()).loaded(t)
	start(t, none)
	if err := none.AttachDisk(&protocol.Disk{}, []*os.File{newDiskFile(t)}); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("attach without slots: %+v", err)
	}
}

// How long a failing disk is looked at, in the time of a bubble.
func TestUntilQuiet(t *testing.T) {
	const look, pause = failLook, time.Minute
	for _, c := range []struct {
		name string
		// answered is how many requests there are to be at a look, which it may keep waiting.
		answered func(look int) uint64
		ended    time.Duration // of the guest, 0 for never
		looks    int
		want     time.Duration // that it takes, 0 for any
	}{
		{"no request", func(int) uint64 { return 7 }, 0, failQuiet, failQuiet * look},
		{"requests for a while", func(n int) uint64 { return uint64(min(n, 20)) }, 0, 20 + failQuiet, (20 + failQuiet) * look},
		{"one just before it is quiet", func(n int) uint64 { return uint64(n / failQuiet) }, 0, failMost, failMost * look},
		{"requests on and on", func(n int) uint64 { return uint64(n) }, 0, failMost, failMost * look},
		{"everything stands still, and then comes a request", func(n int) uint64 {
			switch {
			case n == 2:
				time.Sleep(pause)
			case n > 4:
				return 1
			}
			return 0
		}, 0, 5 + failQuiet, 0},
		{"the guest ends", func(n int) uint64 { return uint64(n) }, 5*look + look/2, 5, 5*look + look/2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				if c.ended > 0 {
					time.AfterFunc(c.ended, func() { close(ended) })
				}
				looks := -1 // the first is the one that others are compared with
				began := time.Now()
				untilQuiet(func() uint64 { looks++; return c.answered(looks) }, ended)
				if looks != c.looks {
					t.Errorf("%d looks, want %d", looks, c.looks)
				}
				if took := time.Since(began); c.want > 0 && took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
			})
		})
	}
}
