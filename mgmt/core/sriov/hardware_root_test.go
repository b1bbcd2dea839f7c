//go:build roottest && hardware

package sriov

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/nvme"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	driver "github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/google/go-cmp/cmp"
)

// manager manages the functions of the machine's devices; owned are those that a guest has.
func manager(owned map[string]string) *Manager {
	return New(Config{
		Inventory: func() (*pci.Inventory, error) { return pci.Find(pci.Host{}) },
		Owners:    func() map[string]string { return owned },
		Uplink:    func(string) []string { return nil },
		Log:       slog.Default(),
	})
}

// card finds the device with a driver that has virtual functions.
func card(t *testing.T, name string) *pci.Device {
	t.Helper()
	inv, err := pci.Find(pci.Host{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range inv.Addresses() {
		if d, err := inv.Read(a); err == nil && d.Driver == name && d.SRIOV != nil {
			return d
		}
	}
	t.Fatalf("there is no device of %s with virtual functions", name)
	return nil
}

func functions(t *testing.T, address string) []string {
	t.Helper()
	all, err := driver.Functions(sysfs, address)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refused sees that an error is a refusal that says so.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	var e *hostcall.Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, want) {
		t.Errorf("%v, want a refusal with %q", err, want)
	}
}

// A network card gets functions, which are set up through it and given back as they were; it is the
// host's all the while, and on.
func TestNIC(t *testing.T) {
	owned := map[string]string{}
	m := manager(owned)
	pf := card(t, "igb")
	where := pf.Names()[0]
	set := func(n int) error { return m.Set(t.Context(), hostcall.VFs{Device: where, Count: n}) }
	link := func() hostcall.Link {
		t.Helper()
		page, err := m.Links("")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(page.Links, func(l hostcall.Link) bool { return l.Device == pf.Address })
		if i < 0 {
			t.Fatalf("no link of %s among %+v", pf.Address, page.Links)
		}
		return page.Links[i]
	}
	refused(t, set(8), "at most 7")
	if err := set(3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set(0) })
	l := link()
	if !l.Up || !l.Carrier || l.Speed != 1000 || !l.Full || l.MTU != 1500 || l.Driver != "igb" || l.TotalVFs != 7 || len(l.VFs) != 3 {
		t.Errorf("the link is %+v", l)
	}
	all := functions(t, pf.Address)
	for _, vf := range all {
		if _, err := os.Stat(filepath.Join(sysfs, "bus/pci/devices", vf, "driver")); err == nil {
			t.Errorf("a driver of the host's has %s", vf)
		}
	}

	release := m.Hold()
	vf := hostcall.VF{Links: []string{where}}
	free := func(a string) bool { return owned[a] == "" }
	one, err := m.Choose(vf, nil, free)
	if err != nil || one != all[0] {
		t.Fatalf("Choose = %s, %v", one, err)
	}
	owned[one] = "a"
	if two, err := m.Choose(vf, nil, free); err != nil || two != all[1] {
		t.Errorf("Choose = %s, %v", two, err)
	}
	_, err = m.Choose(hostcall.VF{Links: []string{"path-0000:00-99.0"}}, nil, free)
	refused(t, err, "no link at")
	_, err = m.Choose(hostcall.VF{Links: []string{card(t, "nvme").Names()[0]}}, nil, free)
	refused(t, err, "is no link of the host")
	_, err = m.Choose(hostcall.VF{Links: []string{where}, VFSettings: hostcall.VFSettings{MAC: l.MAC}}, nil, free)
	refused(t, err, "host's link")
	release()

	want := hostcall.VFSettings{MAC: "02:00:00:00:00:05", VLAN: 100, QoS: 3, MaxRate: 200, NoSpoofCheck: true, Trust: true}
	if err := m.Prepare(one, want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, link().VFs[0].VFSettings); d != "" {
		t.Errorf("the function has (-want +got):\n%s", d)
	}
	_, err = m.Choose(hostcall.VF{Links: []string{where}, VFSettings: want}, nil, free)
	refused(t, err, "which is in use")
	refused(t, m.Prepare(all[1], hostcall.VFSettings{State: hostcall.LinkEnable}), "cannot set the link state")
	refused(t, m.Prepare(all[1], hostcall.VFSettings{MaxRate: 2000}), "at most 1000")
	refused(t, set(2), "in use by a guest")
	refused(t, set(0), "in use by a guest")
	if got := functions(t, pf.Address); !slices.Equal(got, all) {
		t.Errorf("what was refused has left %v of %v", got, all)
	}
	if err := m.Release(one); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(hostcall.VFSettings{}, link().VFs[0].VFSettings); d != "" {
		t.Errorf("given back, the function has (-want +got):\n%s", d)
	}
	delete(owned, one)

	// A card that is off is switched on.
	if err := set(0); err != nil {
		t.Fatal(err)
	}
	if got := link(); len(got.VFs) != 0 {
		t.Errorf("there are %+v", got.VFs)
	}
	if err := m.Release(one); err != nil {
		t.Errorf("release of what is gone: %v", err)
	}
	refused(t, m.Prepare(one, want), "is gone")
	if err := os.WriteFile(filepath.Join(sysfs, "class/net", l.Name, "flags"), []byte("0x1002"), 0); err != nil {
		t.Fatal(err)
	}
	if link().Up {
		t.Fatal("the card is not off")
	}
	if err := set(1); err != nil {
		t.Fatal(err)
	}
	if got := link(); !got.Carrier || len(got.VFs) != 1 {
		t.Errorf("the link is %+v", got)
	}
	// The host's own driver reaches it: its physical function answers.
	vf1 := functions(t, pf.Address)[0]
	if err := m.Prepare(vf1, hostcall.VFSettings{MAC: want.MAC}); err != nil {
		t.Fatal(err)
	}
	probe(t, vf1, "igbvf")
	interfaces, err := os.ReadDir(filepath.Join(sysfs, "bus/pci/devices", vf1, "net"))
	if err != nil || len(interfaces) != 1 {
		t.Fatalf("igbvf does not have it: %v", err)
	}
	i, err := net.InterfaceByName(interfaces[0].Name())
	if err != nil || i.HardwareAddr.String() != want.MAC {
		t.Errorf("its driver knows it as %v, %v", i, err)
	}
	if err := os.WriteFile(filepath.Join(sysfs, "bus/pci/drivers/igbvf/unbind"), []byte(vf1), 0); err != nil {
		t.Fatal(err)
	}
}

// Functions of an NVMe controller are online, have their share and their namespaces, and can be read.
func TestNVMe(t *testing.T) {
	m := manager(nil)
	pf := card(t, "nvme")
	where := pf.Names()[0]
	set := func(n int, namespaces ...[]int) error {
		return m.Set(t.Context(), hostcall.VFs{Device: where, Count: n, Namespaces: namespaces})
	}
	refused(t, set(3), "at most 2")
	refused(t, set(1, []int{9}), "no namespace 9")
	if got := functions(t, pf.Address); len(got) != 0 {
		t.Errorf("what was refused has left %v", got)
	}
	if err := set(2, []int{1}, []int{2}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(0); err != nil {
			t.Error(err)
		}
	})
	c, err := nvme.Open(pf.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Secondaries()
	if err != nil || len(all) != 2 {
		t.Fatalf("secondary controllers %+v, %v", all, err)
	}
	for i, s := range all {
		if !s.Online || s.Queues != 2 || s.Interrupts != 1 || s.Function != i+1 {
			t.Errorf("controller %+v", s)
		}
	}
	attached := func() {
		t.Helper()
		for i, s := range all {
			on, err := c.Attached(i + 1)
			if err != nil || !slices.Equal(on, []int{s.ID}) {
				t.Fatalf("namespace %d is attached to %v, %v; controllers are %+v", i+1, on, err, all)
			}
		}
	}
	attached()
	if t.Failed() {
		t.FailNow()
	}
	for i, vf := range functions(t, pf.Address) {
		read(t, vf, "ashlar-passthrough"+string(rune('1'+i)))
		attached() // whatever the function's driver has done
	}
	// The same again changes nothing; fewer do.
	if err := set(2); err != nil {
		t.Fatal(err)
	}
	inv, err := pci.Find(pci.Host{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := inv.Read(functions(t, pf.Address)[1])
	if err == nil {
		err = m.Online(d)
	}
	if err != nil {
		t.Error(err)
	}
	if err := set(1); err != nil {
		t.Fatal(err)
	}
	if all, err = c.Secondaries(); err != nil || !all[0].Online || all[0].Queues != 2 || all[1].Online || all[1].Queues != 0 {
		t.Errorf("secondary controllers %+v, %v", all, err)
	}
}

// probe has a driver of the host's take the function at an address, which none does by itself.
func probe(t *testing.T, address, driver string) {
	t.Helper()
	for _, step := range [][2]string{{"devices/" + address + "/driver_override", driver}, {"drivers_probe", address}} {
		if err := os.WriteFile(filepath.Join(sysfs, "bus/pci", step[0]), []byte(step[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// read has the host's driver take the function at an address for a while, and reads its disk.
func read(t *testing.T, address, want string) {
	t.Helper()
	write := func(file string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(sysfs, "bus/pci", file), []byte(address), 0); err != nil {
			t.Fatal(err)
		}
	}
	probe(t, address, "nvme")
	defer write("drivers/nvme/unbind")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		disks, err := filepath.Glob(filepath.Join(sysfs, "bus/pci/devices", address, "nvme/nvme*/nvme*n*"))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%d disks", len(disks))
		if len(disks) == 1 {
			got = begins(filepath.Join("/dev", filepath.Base(disks[0])), len(want))
			if got == want {
				return
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the disk of %s begins with %q, want %q", address, got, want)
		}
	}
}

// begins is what a disk begins with, n bytes of it, or why it cannot be read.
func begins(disk string, n int) string {
	f, err := os.Open(disk)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err.Error()
	}
	return string(b)
}
