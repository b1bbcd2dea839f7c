//go:build roottest && hardware

package hostdevice

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
)

// Guests get functions of a card that core chooses, each another one, with what they are to have; these go back
// without it, also when core was killed meanwhile.
func TestHostDeviceFunction(t *testing.T) {
	dir := t.TempDir()
	find := func() (*pci.Inventory, error) { return pci.Find(pci.Host{}) }
	var s *Set
	functions := sriov.New(sriov.Config{Inventory: find, Owners: func() map[string]string { return s.Owners() }, Log: slog.Default()})
	restart := func() {
		t.Helper()
		var err error
		s, err = New(Config{Dir: filepath.Join(dir, "devices"), Find: find, NameOf: func(string) string { return "" }, Functions: functions, Log: slog.Default()})
		if err != nil {
			t.Fatal(err)
		}
	}
	restart()
	inv, err := find()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := nic.Ports("/sys")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(ports, func(p nic.Port) bool { return p.TotalVFs > 0 })
	if i < 0 {
		t.Fatal("no card has virtual functions")
	}
	d, err := inv.Read(ports[i].Device)
	if err != nil {
		t.Fatal(err)
	}
	where := d.Names()[0]
	set := func(n int) error { return functions.Set(t.Context(), hostcall.VFs{Device: where, Count: n}) }
	ask := func(number int, mac string, vlan int) []hostcall.HostDevice {
		return []hostcall.HostDevice{{Number: number, VF: &hostcall.VF{Links: []string{where}, VFSettings: hostcall.VFSettings{MAC: mac, VLAN: vlan}}}}
	}
	_, err = s.Take(guestA, ask(0, "", 0), nil)
	if got := reasons(t, err); !slices.Equal(got, []hostcall.Reason{hostcall.NoFreeVF}) {
		t.Errorf("one of none is refused for %v", got)
	}
	if err := set(2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(0); err != nil {
			t.Error(err)
		}
	})
	const macA, macB = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
	var a []Held
	for range 2 { // again is the same one
		if a, err = s.Take(guestA, ask(0, macA, 7), nil); err != nil || len(a) != 1 {
			t.Fatalf("Take = %+v, %v", a, err)
		}
	}
	wantDriver(t, a[0].Address, vfio.Driver)
	_, err = s.Take(guestB, ask(0, macA, 0), nil)
	if got := reasons(t, err); !slices.Equal(got, []hostcall.Reason{hostcall.MACInUse}) {
		t.Errorf("an address twice is refused for %v", got)
	}
	b, err := s.Take(guestB, ask(0, macB, 0), nil)
	if err != nil || b[0].Address == a[0].Address {
		t.Fatalf("Take = %+v, %v", b, err)
	}
	_, err = s.Take(guestB, ask(1, "", 0), nil)
	if got := reasons(t, err); !slices.Equal(got, []hostcall.Reason{hostcall.NoFreeVF}) {
		t.Errorf("one more than there are is refused for %v", got)
	}
	if err := set(0); err == nil {
		t.Error("functions go from below guests")
	}
	settings := func() [2]string {
		t.Helper()
		ports, err := nic.Ports("/sys")
		if err != nil || len(ports[i].VFs) != 2 {
			t.Fatalf("the link is %+v, %v", ports, err)
		}
		return [2]string{ports[i].VFs[0].MAC.String(), ports[i].VFs[1].MAC.String()}
	}
	if got := settings(); got != [2]string{macA, macB} {
		t.Errorf("the functions have %v", got)
	}
	s.Return(guestB)
	restart() // core was killed, and guest A with it
	if of := s.Of(guestA); len(of) != 1 || of[0].VF == nil || of[0].VF.VLAN != 7 {
		t.Errorf("after a restart guest A has %+v", of)
	}
	s.ReturnOthers(func(string) bool { return false })
	const none = "00:00:00:00:00:00"
	if got := settings(); got != [2]string{none, none} {
		t.Errorf("given back, the functions have %v", got)
	}
	wantDriver(t, a[0].Address, "")
}
