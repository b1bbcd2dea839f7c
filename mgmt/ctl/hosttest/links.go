package hosttest

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// hostLinks are those of the host: the NIC that has a virtual function, and one that is off.
func hostLinks() map[string]*ashlarv1.Link {
	card := &ashlarv1.Link{
		Name: "links/eth1", StableNames: []string{"path-0000:00-1c.0-00.0", "mac-525400a50002"}, MacAddress: "52:54:00:a5:00:02",
		PermanentMacAddress: "52:54:00:a5:00:02", Up: true, Carrier: true, SpeedMbps: 1000, Duplex: ashlarv1.Link_DUPLEX_FULL, MtuBytes: 1500,
		Driver: "igb", PciDevice: "pciDevices/0000:01:00.0", Node: proto.Int32(0), TotalFunctions: 7,
		Functions: []*ashlarv1.Link_Function{{PciDevice: "pciDevices/0000:01:10.0", VirtualMachine: "virtualMachines/wired",
			Settings: &ashlarv1.VirtualFunction{MacAddress: "02:00:00:00:00:05", Vlan: 10, Qos: 3, MaxRateMbps: 100, SpoofCheck: proto.Bool(false), Trust: true, LinkState: ashlarv1.VirtualFunction_LINK_STATE_ENABLE}}},
		Uses: []ashlarv1.Link_Use{ashlarv1.Link_USE_MANAGEMENT, ashlarv1.Link_USE_NETWORK_UPLINK}, Networks: []string{"default"},
	}
	off := &ashlarv1.Link{Name: "links/eth2", MacAddress: "52:54:00:a5:00:03", PermanentMacAddress: "52:54:00:a5:00:04", MtuBytes: 9000, Driver: "e1000e"}
	return map[string]*ashlarv1.Link{card.Name: card, "links/mac-525400a50002": card, off.Name: off}
}

// ListLinks gives one at a time.
func (h *Host) ListLinks(_ context.Context, req *connect.Request[ashlarv1.ListLinksRequest]) (*connect.Response[ashlarv1.ListLinksResponse], error) {
	names, next := page([]string{"links/eth1", "links/eth2"}, req.Msg.GetPageToken())
	res := &ashlarv1.ListLinksResponse{NextPageToken: next}
	for _, n := range names {
		res.Links = append(res.Links, hostLinks()[n])
	}
	return connect.NewResponse(res), nil
}

// GetLink finds one by some of its names.
func (h *Host) GetLink(_ context.Context, req *connect.Request[ashlarv1.GetLinkRequest]) (*connect.Response[ashlarv1.Link], error) {
	l := hostLinks()[req.Msg.GetName()]
	if l == nil {
		return nil, notFound(req.Msg.GetName())
	}
	return reply(l), nil
}

// SetVirtualFunctions says what there would be.
func (h *Host) SetVirtualFunctions(_ context.Context, req *connect.Request[ashlarv1.SetVirtualFunctionsRequest]) (*connect.Response[ashlarv1.PciDevice], error) {
	d := pciDevices()[req.Msg.GetName()]
	switch {
	case d == nil:
		return nil, notFound(req.Msg.GetName())
	case req.Msg.GetCount() > d.GetSriov().GetTotalVfs():
		return nil, violation("count", fmt.Sprintf("it has at most %d", d.GetSriov().GetTotalVfs()))
	}
	d.Sriov = &ashlarv1.PciDevice_Sriov{TotalVfs: d.Sriov.GetTotalVfs(), EnabledVfs: req.Msg.GetCount()}
	for i := range req.Msg.GetCount() {
		d.Sriov.VirtualFunctions = append(d.Sriov.VirtualFunctions, fmt.Sprintf("pciDevices/0000:01:10.%d", 2*i))
	}
	return reply(d), nil
}
