package control_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// card is a physical function with a virtual one, and a disk that shares its group.
func card() []hostcall.PCIDevice {
	return []hostcall.PCIDevice{
		{Address: "0000:01:00.0", Names: []string{"path-a", "dsn-1"}, Parent: "0000:00:1c.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Group: 7,
			TotalVFs: 7, VFs: 2, ResetMethods: []string{"flr"}, BARs: []hostcall.PCIBAR{{Index: 2, Bytes: 4096, IO: true}},
			Link: &hostcall.PCILink{Speed: 2500, Width: 4, MaxSpeed: 5000, MaxWidth: 8}, Extended: true, SerialNumber: "1",
			Interfaces: []hostcall.PCINIC{{Name: "eth1", MAC: "02:00:00:00:00:01"}}, Uses: []string{"management-nic"}},
		{Address: "0000:01:10.0", Names: []string{"path-a-vf0"}, Vendor: 0x8086, Device: 0x10ca, Node: -1, Group: 8, Physical: "0000:01:00.0", Extended: true},
		{Address: "0000:02:00.0", Names: []string{"path-b", "dsn-1"}, Vendor: 0x144d, Device: 0xa808, Class: 0x010802, Node: 1, Group: 7,
			NoACS: []string{"0000:00:1d.0"}, NVMe: "S1", Driver: "nvme"},
	}
}

func TestPciDevices(t *testing.T) {
	l := newLab(t)
	w := l.watch(&ashlarv1.WatchRequest{Collections: []string{"pciDevices"}})
	w.until("synced", synced)
	l.core.SetPCI(card()...)
	want := &ashlarv1.PciDevice{
		Name: "pciDevices/0000:01:00.0", StableNames: []string{"path-a"}, Parent: "pciDevices/0000:00:1c.0",
		VendorId: 0x8086, DeviceId: 0x10c9, ClassCode: 0x020000, Node: proto.Int32(0), IommuGroup: proto.Int32(7),
		GroupMembers: []string{"pciDevices/0000:02:00.0"}, ResetMethods: []string{"flr"},
		Sriov:        &ashlarv1.PciDevice_Sriov{TotalVfs: 7, EnabledVfs: 2, VirtualFunctions: []string{"pciDevices/0000:01:10.0"}},
		Bars:         []*ashlarv1.PciDevice_Bar{{Index: 2, SizeBytes: 4096, Io: true}},
		Link:         &ashlarv1.PciDevice_Link{SpeedMts: 2500, Width: 4, MaxSpeedMts: 5000, MaxWidth: 8},
		SerialNumber: "1", NetworkInterfaces: []*ashlarv1.PciDevice_NetworkInterface{{Name: "eth1", MacAddress: "02:00:00:00:00:01"}},
		Uses: []ashlarv1.PciDevice_Use{ashlarv1.PciDevice_USE_MANAGEMENT_NIC},
	}
	seen := w.until("the disk", func(r *ashlarv1.WatchResponse) bool { return r.GetPciDevice().GetDriver() == "nvme" })
	if d := cmp.Diff(want, seen[0].GetPciDevice(), protocmp.Transform()); d != "" || len(seen) != 3 {
		t.Errorf("the watch has %d devices (-want +got):\n%s", len(seen), d)
	}
	for _, name := range []string{"pciDevices/0000:01:00.0", "pciDevices/path-a"} {
		got, err := l.devices.GetPciDevice(ctxOf(t), req(&ashlarv1.GetPciDeviceRequest{Name: name}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got.Msg, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	var names []string
	for token := ""; ; {
		res, err := l.devices.ListPciDevices(ctxOf(t), req(&ashlarv1.ListPciDevicesRequest{PageSize: 2, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range res.Msg.PciDevices {
			names = append(names, d.Name)
		}
		if token = res.Msg.NextPageToken; token == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "pciDevices/0000:01:00.0 pciDevices/0000:01:10.0 pciDevices/0000:02:00.0" {
		t.Errorf("the list has %s", got)
	}
	// The name that two have is that of none.
	for name, code := range map[string]connect.Code{
		"pciDevices/dsn-1": connect.CodeNotFound, "pciDevices/0000:09:00.0": connect.CodeNotFound,
		"0000:01:00.0": connect.CodeInvalidArgument, "pciDevices/": connect.CodeInvalidArgument,
	} {
		if _, err := l.devices.GetPciDevice(ctxOf(t), req(&ashlarv1.GetPciDeviceRequest{Name: name})); connect.CodeOf(err) != code {
			t.Errorf("get %s: %v, want %v", name, err, code)
		}
	}
	// The disk goes: what others said of it goes, too.
	l.core.SetPCI(card()[:2]...)
	gone := w.until("the disk's end", func(r *ashlarv1.WatchResponse) bool { return len(r.GetPciDevice().GetStableNames()) == 2 })
	if gone[0].Kind != ashlarv1.WatchResponse_KIND_DELETED || gone[0].GetPciDevice().GetName() != "pciDevices/0000:02:00.0" {
		t.Errorf("the watch says %v", gone)
	}
	if d := gone[1].GetPciDevice(); len(d.GroupMembers) != 0 {
		t.Errorf("what is left says %v", d)
	}
}

// pool is what the test's core has of pages of 2 MiB.
func pool() hostcall.HugepagePool {
	return hostcall.HugepagePool{Page: 2 << 20, Total: 6, Free: 4, Reserved: 1, Surplus: 1, Nodes: []hostcall.HugepageNode{{ID: 0, Total: 5, Free: 3, Surplus: 1}, {ID: 1, Total: 1, Free: 1}}}
}

func TestHugepagePools(t *testing.T) {
	l := newLab(t)
	l.core.SetPool(pool())
	const name = "hugepagePools/2MiB"
	res, err := l.hugepages.ListHugepagePools(ctxOf(t), req(&ashlarv1.ListHugepagePoolsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	want := []*ashlarv1.HugepagePool{{Name: name, PageBytes: 2 << 20, TotalPages: 6, FreePages: 4, ReservedPages: 1, SurplusPages: 1,
		Nodes: []*ashlarv1.HugepagePool_Node{{Id: 0, TotalPages: 5, FreePages: 3, SurplusPages: 1}, {Id: 1, TotalPages: 1, FreePages: 1}}}}
	if d := cmp.Diff(want, res.Msg.HugepagePools, protocmp.Transform()); d != "" {
		t.Errorf("pools (-want +got):\n%s", d)
	}
	set := func(name string, pages int64, node *int32) (*ashlarv1.HugepagePool, error) {
		res, err := l.hugepages.SetHugepagePool(ctxOf(t), req(&ashlarv1.SetHugepagePoolRequest{Name: name, Pages: pages, Node: node}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	for _, tt := range []struct {
		name, field string
		pages       int64
		node        *int32
		code        connect.Code
	}{
		{name, "pages", 1001, nil, connect.CodeResourceExhausted},
		{name, "node", 1, proto.Int32(2), connect.CodeInvalidArgument},
		{name, "node", 1, proto.Int32(-1), connect.CodeInvalidArgument},
		{name, "pages", -1, nil, connect.CodeInvalidArgument},
		{"hugepagePools/1GiB", "", 1, nil, connect.CodeNotFound},
		{"hugepagePools/2048KiB", "name", 1, nil, connect.CodeInvalidArgument},
		{"hugepagePools/2", "name", 1, nil, connect.CodeInvalidArgument},
		{"2MiB", "name", 1, nil, connect.CodeInvalidArgument},
	} {
		if _, err := set(tt.name, tt.pages, tt.node); connect.CodeOf(err) != tt.code || tt.code == connect.CodeInvalidArgument && !strings.Contains(err.Error(), tt.field+": ") {
			t.Errorf("set %s to %d: %v, want %v of %s", tt.name, tt.pages, err, tt.code, tt.field)
		}
	}
	got, err := set(name, 9, proto.Int32(1))
	if err != nil || got.Nodes[1].TotalPages != 9 || got.Nodes[1].ConfiguredPages != 9 || got.Nodes[0].ConfiguredPages != 0 {
		t.Errorf("set = %v, %v", got, err)
	}

	// A reboot: the pools are empty, and control asks for what was asked of it. A second
	// start of control alone changes nothing.
	empty := pool()
	empty.Nodes, empty.Total = []hostcall.HugepageNode{{ID: 0}, {ID: 1}}, 0
	l.core.SetPool(empty)
	l.restartControl()
	get := func() *ashlarv1.HugepagePool {
		t.Helper()
		res, err := l.hugepages.GetHugepagePool(ctxOf(t), req(&ashlarv1.GetHugepagePoolRequest{Name: name}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	if got := get(); got.TotalPages != 9 || got.Nodes[1].ConfiguredPages != 9 {
		t.Errorf("after a boot the pool has %v", got)
	}

	// What is set to nothing is forgotten.
	if got, err := set(name, 0, nil); err != nil || got.TotalPages != 0 {
		t.Errorf("set = %v, %v", got, err)
	}
	before := l.core.Calls(hostcall.HugepagesSet)
	l.restartControl()
	if got := get(); got.TotalPages != 0 || l.core.Calls(hostcall.HugepagesSet) != before {
		t.Errorf("after a boot the pool has %v", got)
	}
}
