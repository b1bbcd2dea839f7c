package hosttest

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// pciDevices are those of the host: a NIC with a virtual function, the data disk, a bridge.
func pciDevices() map[string]*ashlarv1.PciDevice {
	all := map[string]*ashlarv1.PciDevice{}
	for _, d := range []*ashlarv1.PciDevice{
		{Name: "pciDevices/0000:00:1c.0", StableNames: []string{"path-0000:00-1c.0"}, ClassCode: 0x060400, VendorId: 0x8086, DeviceId: 0x7ab8,
			Driver: "pcieport", Node: proto.Int32(0), IommuGroup: proto.Int32(3)},
		{Name: "pciDevices/0000:01:00.0", StableNames: []string{"path-0000:00-1c.0-00.0", "mac-525400a50002"}, ClassCode: 0x020000,
			VendorId: 0x8086, DeviceId: 0x10c9, SubsystemVendorId: 0x1028, SubsystemDeviceId: 0x1f, Revision: 1, Driver: "igb", Node: proto.Int32(0),
			IommuGroup: proto.Int32(4), Parent: "pciDevices/0000:00:1c.0", ResetMethods: []string{"flr", "bus"},
			Sriov: &ashlarv1.PciDevice_Sriov{TotalVfs: 7, EnabledVfs: 1, VirtualFunctions: []string{"pciDevices/0000:01:10.0"}},
			Bars:  []*ashlarv1.PciDevice_Bar{{Index: 0, SizeBytes: 128 << 10}, {Index: 2, SizeBytes: 32, Io: true}, {Index: 4, SizeBytes: 16 << 10, Wide: true, Prefetchable: true}},
			Link:  &ashlarv1.PciDevice_Link{SpeedMts: 2500, Width: 4, MaxSpeedMts: 8000, MaxWidth: 4}, SerialNumber: "525400ffffa50002",
			NetworkInterfaces: []*ashlarv1.PciDevice_NetworkInterface{{Name: "eth1", MacAddress: "52:54:00:a5:00:02"}},
			Uses:              []ashlarv1.PciDevice_Use{ashlarv1.PciDevice_USE_MANAGEMENT_NIC}},
		{Name: "pciDevices/0000:01:10.0", StableNames: []string{"path-0000:00-1c.0-00.0-vf0"}, ClassCode: 0x020000, VendorId: 0x8086, DeviceId: 0x10ca,
			Node: proto.Int32(0), IommuGroup: proto.Int32(5), Parent: "pciDevices/0000:00:1c.0", ResetMethods: []string{"flr"},
			PhysicalFunction: "pciDevices/0000:01:00.0"},
		{Name: "pciDevices/0000:02:00.0", StableNames: []string{"path-0000:00-1d.0-00.0", "nvme-S1"}, ClassCode: 0x010802, VendorId: 0x144d, DeviceId: 0xa808,
			Driver: "nvme", WithoutAcs: []string{"pciDevices/0000:00:1d.0"}, IommuGroup: proto.Int32(6), GroupMembers: []string{"pciDevices/0000:00:1d.0"},
			NvmeSerialNumber: "S1", Uses: []ashlarv1.PciDevice_Use{ashlarv1.PciDevice_USE_DATA_DISK}},
	} {
		all[d.Name] = d
		for _, n := range d.StableNames {
			all["pciDevices/"+n] = d
		}
	}
	return all
}

// ListPciDevices gives two at a time.
func (h *Host) ListPciDevices(_ context.Context, req *connect.Request[ashlarv1.ListPciDevicesRequest]) (*connect.Response[ashlarv1.ListPciDevicesResponse], error) {
	all := pciDevices()
	names, next := page([]string{"pciDevices/0000:00:1c.0", "pciDevices/0000:01:00.0", "pciDevices/0000:01:10.0", "pciDevices/0000:02:00.0"}, req.Msg.GetPageToken())
	res := &ashlarv1.ListPciDevicesResponse{NextPageToken: next}
	for _, n := range names {
		res.PciDevices = append(res.PciDevices, all[n])
	}
	return connect.NewResponse(res), nil
}

// GetPciDevice finds one by any of its names.
func (h *Host) GetPciDevice(_ context.Context, req *connect.Request[ashlarv1.GetPciDeviceRequest]) (*connect.Response[ashlarv1.PciDevice], error) {
	d := pciDevices()[req.Msg.GetName()]
	if d == nil {
		return nil, notFound(req.Msg.GetName())
	}
	return reply(d), nil
}

// pool is that of the host, with so many pages on nodes.
func (h *Host) pool() *ashlarv1.HugepagePool {
	p := &ashlarv1.HugepagePool{Name: "hugepagePools/2MiB", PageBytes: 2 << 20, ReservedPages: 2}
	for id, n := range h.hugepages {
		p.Nodes = append(p.Nodes, &ashlarv1.HugepagePool_Node{Id: int32(id), TotalPages: n, FreePages: n, ConfiguredPages: n})
		p.TotalPages += n
		p.FreePages += n
	}
	return p
}

// ListHugepagePools has one pool.
func (h *Host) ListHugepagePools(context.Context, *connect.Request[ashlarv1.ListHugepagePoolsRequest]) (*connect.Response[ashlarv1.ListHugepagePoolsResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return connect.NewResponse(&ashlarv1.ListHugepagePoolsResponse{HugepagePools: []*ashlarv1.HugepagePool{h.pool()}}), nil
}

// GetHugepagePool has one pool.
func (h *Host) GetHugepagePool(_ context.Context, req *connect.Request[ashlarv1.GetHugepagePoolRequest]) (*connect.Response[ashlarv1.HugepagePool], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.pool(); p.Name == req.Msg.GetName() {
		return reply(p), nil
	}
	return nil, notFound(req.Msg.GetName())
}

// SetHugepagePool has memory for 100 pages on each of two nodes.
func (h *Host) SetHugepagePool(_ context.Context, req *connect.Request[ashlarv1.SetHugepagePoolRequest]) (*connect.Response[ashlarv1.HugepagePool], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := req.Msg
	set := h.hugepages
	switch {
	case m.GetName() != h.pool().Name:
		return nil, notFound(m.GetName())
	case m.Node == nil:
		set = [2]int64{m.GetPages() - m.GetPages()/2, m.GetPages() / 2}
	case m.GetNode() < 0 || int(m.GetNode()) >= len(set):
		return nil, violation("node", fmt.Sprintf("The host has no NUMA node %d", m.GetNode()))
	default:
		set[m.GetNode()] = m.GetPages()
	}
	for _, n := range set {
		if n > 100 {
			return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("memory for 100 pages"))
		}
	}
	h.hugepages = set
	return reply(h.pool()), nil
}
