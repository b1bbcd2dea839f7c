package control_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// wires are the link of card, and one that is off.
func wires() []hostcall.Link {
	return []hostcall.Link{
		{Name: "eth1", MAC: "02:00:00:00:00:01", PermanentMAC: "02:00:00:00:00:01", Up: true, Carrier: true, MTU: 1500, Speed: 1000, Full: true,
			Driver: "igb", Device: "0000:01:00.0", TotalVFs: 7, Management: true, Uplink: []string{"default"},
			VFs: []hostcall.LinkVF{{Device: "0000:01:10.0", VFSettings: hostcall.VFSettings{MAC: "02:00:00:00:00:05", VLAN: 10, QoS: 1, MaxRate: 100, NoSpoofCheck: true, Trust: true, State: hostcall.LinkDisable}}}},
		{Name: "eth2", MAC: "02:00:00:00:00:02", MTU: 9000, Node: -1},
	}
}

func TestLinks(t *testing.T) {
	l := newLab(t)
	w := l.watch(&ashlarv1.WatchRequest{Collections: []string{"links"}})
	w.until("synced", synced)
	l.core.SetPCI(card()...)
	l.core.SetLinks(wires()...)
	want := &ashlarv1.Link{
		Name: "links/eth1", StableNames: []string{"path-a"}, MacAddress: "02:00:00:00:00:01", PermanentMacAddress: "02:00:00:00:00:01", Up: true, Carrier: true,
		SpeedMbps: 1000, Duplex: ashlarv1.Link_DUPLEX_FULL, MtuBytes: 1500, Driver: "igb", PciDevice: "pciDevices/0000:01:00.0", Node: proto.Int32(0), TotalFunctions: 7,
		Functions: []*ashlarv1.Link_Function{{PciDevice: "pciDevices/0000:01:10.0", Settings: &ashlarv1.VirtualFunction{
			MacAddress: "02:00:00:00:00:05", Vlan: 10, Qos: 1, MaxRateMbps: 100, SpoofCheck: proto.Bool(false), Trust: true, LinkState: ashlarv1.VirtualFunction_LINK_STATE_DISABLE}}},
		Uses: []ashlarv1.Link_Use{ashlarv1.Link_USE_MANAGEMENT, ashlarv1.Link_USE_NETWORK_UPLINK}, Networks: []string{"default"},
	}
	w.until("the link", func(r *ashlarv1.WatchResponse) bool { return proto.Equal(r.GetLink(), want) })
	for _, name := range []string{"links/eth1", "links/path-a"} {
		got, err := l.links.GetLink(ctxOf(t), req(&ashlarv1.GetLinkRequest{Name: name}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got.Msg, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	res, err := l.links.ListLinks(ctxOf(t), req(&ashlarv1.ListLinksRequest{PageSize: 1}))
	if err != nil || len(res.Msg.Links) != 1 || res.Msg.NextPageToken == "" {
		t.Errorf("the first page of the list is %v, %v", res, err)
	}
	for name, code := range map[string]connect.Code{"links/eth9": connect.CodeNotFound, "eth1": connect.CodeInvalidArgument, "links/": connect.CodeInvalidArgument} {
		if _, err := l.links.GetLink(ctxOf(t), req(&ashlarv1.GetLinkRequest{Name: name})); connect.CodeOf(err) != code {
			t.Errorf("get %s: %v, want %v", name, err, code)
		}
	}
	l.core.SetLinks(wires()[1])
	w.until("the link's end", func(r *ashlarv1.WatchResponse) bool {
		return r.GetLink().GetName() == "links/eth1" && r.Kind == ashlarv1.WatchResponse_KIND_DELETED
	})
}

func (l *lab) setVFs(name string, count int32, namespaces ...[]int32) (*ashlarv1.PciDevice, error) {
	r := &ashlarv1.SetVirtualFunctionsRequest{Name: name, Count: count}
	for _, n := range namespaces {
		r.Namespaces = append(r.Namespaces, &ashlarv1.SetVirtualFunctionsRequest_Namespaces{Ids: n})
	}
	res, err := l.devices.SetVirtualFunctions(ctxOf(l.t), req(r))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// withCard makes card the devices of the host, and waits until control knows them.
func (l *lab) withCard() {
	l.t.Helper()
	w := l.watch(&ashlarv1.WatchRequest{Collections: []string{"pciDevices", "links"}})
	w.until("synced", synced)
	l.core.SetPCI(card()...)
	l.core.SetLinks(wires()...)
	w.until("the link with its device", func(r *ashlarv1.WatchResponse) bool { return len(r.GetLink().GetStableNames()) > 0 })
}

// Virtual functions are as they were asked for, also after a boot, and when a card has lost them.
func TestSetVirtualFunctions(t *testing.T) {
	l := newLab(t)
	l.withCard()
	for _, tt := range []struct {
		name       string
		count      int32
		namespaces [][]int32
		code       connect.Code
		field      string
	}{
		{"pciDevices/0000:01:00.0", 8, nil, connect.CodeInvalidArgument, "count"},
		{"pciDevices/0000:01:00.0", -1, nil, connect.CodeInvalidArgument, "count"},
		{"pciDevices/0000:01:00.0", 2, [][]int32{{1}}, connect.CodeInvalidArgument, "namespaces"},
		{"pciDevices/0000:01:00.0", 2, [][]int32{{1}, {1}}, connect.CodeInvalidArgument, "namespaces"},
		{"pciDevices/0000:09:00.0", 1, nil, connect.CodeNotFound, ""},
		{"0000:01:00.0", 1, nil, connect.CodeInvalidArgument, "name"},
	} {
		if _, err := l.setVFs(tt.name, tt.count, tt.namespaces...); connect.CodeOf(err) != tt.code || tt.field != "" && !strings.Contains(err.Error(), tt.field+": ") {
			t.Errorf("%d of %s: %v, want %v of %s", tt.count, tt.name, err, tt.code, tt.field)
		}
	}
	got, err := l.setVFs("pciDevices/path-a", 3)
	if err != nil || got.Sriov.GetEnabledVfs() != 3 || len(got.Sriov.GetVirtualFunctions()) != 3 || got.Name != "pciDevices/0000:01:00.0" {
		t.Errorf("set = %v, %v", got, err)
	}

	// A boot: the card has none, under another address.
	asked := len(l.core.VFs())
	moved := card()[:1]
	moved[0].Address, moved[0].VFs = "0000:05:00.0", 0
	l.stop()
	l.core.SetPCI(moved...)
	l.restartControl()
	l.untilVFs(asked+1, "path-a", 3)

	// It has lost them while the host runs.
	l.core.SetPCI(moved...)
	l.untilVFs(asked+2, "path-a", 3)

	// Without a card there is nothing to ask for, and none that is to have none is asked.
	l.core.SetPCI()
	l.core.SetPCI(moved...)
	l.untilVFs(asked+3, "path-a", 3)
	if _, err := l.setVFs("pciDevices/path-a", 0); err != nil {
		t.Fatal(err)
	}
	asked = len(l.core.VFs())
	l.restartControl()
	if all := l.core.VFs(); len(all) != asked || all[asked-1].Count != 0 {
		t.Errorf("core was asked for %v", all)
	}
}

// untilVFs waits until core was asked so often, at last for so many of a device.
func (l *lab) untilVFs(asked int, device string, count int) {
	l.t.Helper()
	var all []hostcall.VFs
	for range 1000 {
		if all = l.core.VFs(); len(all) >= asked {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(all) != asked || all[asked-1].Device != device || all[asked-1].Count != count {
		l.t.Fatalf("core was asked for %+v, want %d times, at last %d of %s", all, asked, count, device)
	}
}

// A card that cannot have its functions after a boot is told of, and keeps nobody waiting.
func TestVirtualFunctionsAreMissing(t *testing.T) {
	l := newLab(t)
	l.withCard()
	if _, err := l.setVFs("pciDevices/path-a", 3); err != nil {
		t.Fatal(err)
	}
	less := card()[:1]
	less[0].VFs, less[0].TotalVFs = 0, 2
	l.stop()
	l.core.SetPCI(less...)
	l.restartControl()
	if !strings.Contains(l.log.String(), "virtual functions are missing") {
		t.Error("the log says nothing of it")
	}
	if all := l.core.VFs(); len(all) != 2 {
		t.Errorf("core was asked for %v", all)
	}
}

// wired is a machine with virtual functions of card.
func wired(id string, functions ...*ashlarv1.VirtualFunction) *ashlarv1.CreateVirtualMachineRequest {
	r := spec(id)
	r.VirtualMachine.Devices = nil
	for _, f := range functions {
		r.VirtualMachine.Devices = append(r.VirtualMachine.Devices, &ashlarv1.HostDevice{VirtualFunction: f})
	}
	return r
}

// A virtual function is asked for by where its link is, and has an address that stays.
func TestMachineWithVirtualFunctions(t *testing.T) {
	l := newLab(t)
	l.withCard()
	if _, err := l.setVFs("pciDevices/path-a", 3); err != nil {
		t.Fatal(err)
	}
	l.upload("kernel", 10_000)
	l.upload("disk", 512*100)
	eth1 := []string{"links/eth1"}
	for wrong, f := range map[string]*ashlarv1.VirtualFunction{
		"devices[0].virtual_function.links: ":         {},
		"devices[0].virtual_function.links[0]: ":      {Links: []string{"links/eth9"}},
		"cannot have virtual functions":               {Links: []string{"links/eth2"}},
		"links[1]: links/path-a stands there twice":   {Links: []string{"links/eth1", "links/path-a"}},
		"devices[0].virtual_function.vlan: ":          {Links: eth1, Vlan: 4095},
		"devices[0].virtual_function.qos: ":           {Links: eth1, Qos: 1},
		"devices[0].virtual_function.max_rate_mbps: ": {Links: eth1, MaxRateMbps: -1},
		"devices[0].virtual_function.mac_address: ":   {Links: eth1, MacAddress: "01:00:5e:00:00:01"},
		"devices[0].virtual_function.link_state: ":    {Links: eth1, LinkState: 7},
	} {
		if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wired("wrong", f))); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%v: %v, want %q", f, err, wrong)
		}
	}
	off := proto.Bool(false)
	res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wired("demo",
		&ashlarv1.VirtualFunction{Links: eth1, Vlan: 10, Qos: 2, MaxRateMbps: 100, SpoofCheck: off, Trust: true, LinkState: ashlarv1.VirtualFunction_LINK_STATE_ENABLE},
		&ashlarv1.VirtualFunction{Links: eth1, MacAddress: "02:00:00:00:00:77"})))
	if err != nil {
		t.Fatal(err)
	}
	got := res.Msg.Devices[0].VirtualFunction
	mac := got.GetMacAddress()
	if got.Links[0] != "links/path-a" || !strings.HasPrefix(mac, "02:") || got.Vlan != 10 || *got.SpoofCheck || res.Msg.Devices[0].Device != "" || res.Msg.Devices[1].Number != 1 {
		t.Errorf("devices = %v", res.Msg.Devices)
	}
	// The address is taken, of a NIC as well.
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wired("twin", &ashlarv1.VirtualFunction{Links: eth1, MacAddress: mac}))); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("an address twice: %v", err)
	}
	nic := spec("twin")
	nic.VirtualMachine.NetworkInterfaces = []*ashlarv1.NetworkInterface{{Network: "default", MacAddress: "02:00:00:00:00:77"}}
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(nic)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("an address twice: %v", err)
	}
	l.restartControl()
	l.mustStart("virtualMachines/demo")
	asked, _ := l.core.Spec(res.Msg.Uid)
	want := []hostcall.HostDevice{
		{VF: &hostcall.VF{Links: []string{"path-a"}, VFSettings: hostcall.VFSettings{MAC: mac, VLAN: 10, QoS: 2, MaxRate: 100, NoSpoofCheck: true, Trust: true, State: hostcall.LinkEnable}}},
		{Number: 1, VF: &hostcall.VF{Links: []string{"path-a"}, VFSettings: hostcall.VFSettings{MAC: "02:00:00:00:00:77"}}},
	}
	if d := cmp.Diff(want, asked.Devices); d != "" {
		t.Errorf("core is asked for (-want +got):\n%s", d)
	}
	vm := l.until("virtualMachines/demo", "with its devices", func(vm *ashlarv1.VirtualMachine) bool { return vm.Devices[0].Address != "" })
	if vm.Devices[0].Address == vm.Devices[1].Address || vm.Devices[1].Address == "" {
		t.Errorf("devices = %v", vm.Devices)
	}
	// One more, while it runs; and its address is free when it goes.
	attach := &ashlarv1.AttachVirtualMachineDeviceRequest{Name: vm.Name, Device: &ashlarv1.HostDevice{VirtualFunction: &ashlarv1.VirtualFunction{Links: eth1, MacAddress: "02:00:00:00:00:77"}}}
	if _, err := l.machines.AttachVirtualMachineDevice(ctxOf(t), req(attach)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("attach of an address twice: %v", err)
	}
	attach.Device.VirtualFunction.MacAddress = ""
	if op := l.done(l.machines.AttachVirtualMachineDevice(ctxOf(t), req(attach))); op.Error != nil {
		t.Fatal(op)
	}
	third := l.get(vm.Name).Devices[2].VirtualFunction.GetMacAddress()
	if third == "" || third == mac {
		t.Errorf("the third function has the address %q", third)
	}
	if op := l.done(l.machines.DetachVirtualMachineDevice(ctxOf(t), req(&ashlarv1.DetachVirtualMachineDeviceRequest{Name: vm.Name, Device: 2, Force: true}))); op.Error != nil {
		t.Fatal(op)
	}
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wired("other", &ashlarv1.VirtualFunction{Links: eth1, MacAddress: third}))); err != nil {
		t.Errorf("an address that is free again: %v", err)
	}
}
