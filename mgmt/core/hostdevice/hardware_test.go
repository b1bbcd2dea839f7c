//go:build roottest && hardware

package hostdevice

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
)

const (
	guestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	guestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// disk is the NVMe disk of the machine that these tests run on.
func disk(t *testing.T) (*pci.Device, hostcall.HostDevice) {
	t.Helper()
	inv, err := pci.Find(pci.Host{})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range inv.Addresses() {
		d, err := inv.Read(address)
		if err != nil {
			t.Fatal(err)
		}
		if d.Class == 0x010802 {
			return d, hostcall.HostDevice{Name: "path-" + d.Path, Vendor: d.Vendor, Device: d.Device}
		}
	}
	t.Fatal("the machine has no NVMe disk")
	return nil, hostcall.HostDevice{}
}

// node is the file of a controller's disk; "" while there is none. Its number is the lowest that no
// other controller has at the time, or has had until just now.
func node(address string) string {
	found, _ := filepath.Glob(filepath.Join("/sys/bus/pci/devices", address, "nvme/nvme*/nvme*n1"))
	if len(found) != 1 {
		return ""
	}
	file := filepath.Join("/dev", filepath.Base(found[0]))
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// newSet is a Set as a core that has just been started has it.
func newSet(t *testing.T, dir string, use pci.Host) *Set {
	t.Helper()
	find := func() (*pci.Inventory, error) { return pci.Find(use) }
	s, err := New(Config{Dir: dir, Find: find, Functions: sriov.New(sriov.Config{Inventory: find, Owners: func() map[string]string { return nil }, Log: slog.Default()}),
		NameOf: func(id string) string { return "guest-" + id[:1] }, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantDriver waits for the driver of a device: the host's come in their own time.
func wantDriver(t *testing.T, address, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, err := vfio.DriverOf(address)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has the driver %q, %v; want %q", address, got, err, want)
		}
	}
}

// wantHost waits until a device is the host's as if nothing had ever been.
func wantHost(t *testing.T, dir, address string) {
	t.Helper()
	wantDriver(t, address, "nvme")
	b, err := os.ReadFile(filepath.Join("/sys/bus/pci/devices", address, "driver_override"))
	if err != nil || strings.TrimSpace(string(b)) != "(null)" {
		t.Errorf("driver_override is %q, %v", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("records are left: %v, %v", left, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if node(address) != "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the disk is not there again")
		}
	}
}

func reasons(t *testing.T, err error) (out []hostcall.Reason) {
	t.Helper()
	var e *hostcall.Error
	if !errors.As(err, &e) || e.Code != hostcall.FailedPrecondition {
		t.Fatalf("refused with %v", err)
	}
	for _, v := range e.Violations {
		out = append(out, v.Reason)
	}
	return out
}

// A guest gets a disk, another one does not, and the host has it again.
func TestHostDeviceTaken(t *testing.T) {
	d, want := disk(t)
	dir := t.TempDir()
	s := newSet(t, dir, pci.Host{})
	for range 2 { // again is no error
		held, err := s.Take(guestA, []hostcall.HostDevice{want}, nil)
		if err != nil || len(held) != 1 || held[0].Address != d.Address || held[0].Driver != "nvme" || held[0].NoReset {
			t.Fatalf("Take = %+v, %v", held, err)
		}
		wantDriver(t, d.Address, vfio.Driver)
	}
	f, err := os.OpenFile(vfio.Node(d.Address), os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
	}
	f.Close()
	if _, err := s.Take(guestB, []hostcall.HostDevice{want}, nil); !slices.Equal(reasons(t, err), []hostcall.Reason{hostcall.Owned}) {
		t.Errorf("another guest gets it: %v", err)
	}
	if err := s.Check(guestB, []hostcall.HostDevice{want}); err != nil {
		t.Errorf("another guest could not have it later: %v", err)
	}
	if !s.Fault(guestA, d.Address, "it is gone", time.Now()) || s.Fault(guestB, d.Address, "no", time.Now()) {
		t.Error("a fault is not noted, or one of another guest's")
	}
	s = newSet(t, dir, pci.Host{}) // core is started again
	if of := s.Of(guestA); len(of) != 1 || of[0].Fault != "it is gone" || s.Owners()[d.Address] != guestA {
		t.Errorf("after a restart guest A has %+v", of)
	}
	s.ReturnOthers(func(id string) bool { return id == guestA })
	wantDriver(t, d.Address, vfio.Driver)
	if err := s.ReturnOne(guestA, 0); err != nil {
		t.Fatal(err)
	}
	wantHost(t, dir, d.Address)
}

// Wherever core was ended while it took the disk or gave it back, the next one gives it back.
func TestHostDeviceCutOff(t *testing.T) {
	d, want := disk(t)
	set := func(text string, path ...string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join("/sys/bus/pci", filepath.Join(path...)), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		what string
		do   func()
	}{
		{"recorded", func() {}},
		{"others kept off", func() { set(vfio.Driver, "devices", d.Address, "driver_override") }},
		{"without a driver", func() { set(d.Address, "drivers/nvme/unbind") }},
		{"taken", func() { set(d.Address, "drivers_probe") }},
		{"let go", func() { set("\n", "devices", d.Address, "driver_override") }},
		{"without a driver again", func() { set(d.Address, "drivers/vfio-pci/unbind") }},
	}
	for i := range steps {
		t.Run(steps[i].what, func(t *testing.T) {
			dir := t.TempDir()
			s := newSet(t, dir, pci.Host{})
			err := s.note(Held{Guest: guestA, Address: d.Address, Name: want.Name, Group: d.Group, Driver: "nvme"})
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range steps[:i+1] {
				step.do()
			}
			// One that goes on has it taken; the next gives it back.
			if i%2 == 1 {
				if _, err := newSet(t, dir, pci.Host{}).Take(guestA, []hostcall.HostDevice{want}, nil); err != nil {
					t.Fatal(err)
				}
				wantDriver(t, d.Address, vfio.Driver)
			}
			newSet(t, dir, pci.Host{}).ReturnOthers(func(string) bool { return false })
			wantHost(t, dir, d.Address)
		})
	}
}

// A device that cannot be reset stays with its guest.
func TestHostDeviceWithoutReset(t *testing.T) {
	d, want := disk(t)
	methods := filepath.Join("/sys/bus/pci/devices", d.Address, "reset_method")
	if err := os.WriteFile(methods, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(methods, []byte("default"), 0); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	s := newSet(t, dir, pci.Host{})
	if _, err := s.Take(guestA, []hostcall.HostDevice{want}, nil); !slices.Equal(reasons(t, err), []hostcall.Reason{hostcall.NoReset}) {
		t.Errorf("without a reset: %v", err)
	}
	want.AllowNoReset = true
	for range 2 { // again and again
		if _, err := s.Take(guestA, []hostcall.HostDevice{want}, nil); err != nil {
			t.Fatal(err)
		}
		s.Return(guestA)
		wantDriver(t, d.Address, vfio.Driver)
		if of := s.Of(guestA); len(of) != 0 {
			t.Errorf("a guest that has ended has %+v", of)
		}
		s = newSet(t, dir, pci.Host{})
		s.ReturnOthers(func(string) bool { return false })
		if err := s.Check(guestB, []hostcall.HostDevice{want}); !slices.Equal(reasons(t, err), []hostcall.Reason{hostcall.Owned}) {
			t.Errorf("another guest could have it: %v", err)
		}
	}
	if err := vfio.GiveBack(d.Address, "nvme"); err != nil {
		t.Fatal(err)
	}
	if err := s.forget(d.Address); err != nil {
		t.Fatal(err)
	}
	wantHost(t, dir, d.Address)
}

// What is not what was asked for, or what the host needs, is refused.
func TestHostDeviceRefused(t *testing.T) {
	d, want := disk(t)
	other := want
	other.Device++
	for _, tt := range []struct {
		use    pci.Host
		want   hostcall.HostDevice
		reason hostcall.Reason
	}{
		{pci.Host{}, other, hostcall.OtherDevice},
		{pci.Host{DataDisk: node(d.Address)}, want, hostcall.UsedByHost},
		{pci.Host{}, hostcall.HostDevice{Name: "path-0000:00-1f.7"}, hostcall.DeviceMissing},
		{pci.Host{}, hostcall.HostDevice{Name: "path-" + strings.TrimSuffix(strings.TrimPrefix(want.Name, "path-"), "-00.0")}, hostcall.NotAssignable},
	} {
		dir := t.TempDir()
		_, err := newSet(t, dir, tt.use).Take(guestA, []hostcall.HostDevice{tt.want}, nil)
		if got := reasons(t, err); !slices.Contains(got, tt.reason) {
			t.Errorf("%v is refused for %v, want %s", tt.want, got, tt.reason)
		}
		wantHost(t, dir, d.Address)
	}
	if ok, err := vfio.Remapping(); !ok || err != nil {
		t.Errorf("interrupts are remapped: %v, %v", ok, err)
	}
	if set := vfio.UnsafeAllowed(); set != nil {
		t.Errorf("unsafe interrupts are allowed by %v", set)
	}
}
