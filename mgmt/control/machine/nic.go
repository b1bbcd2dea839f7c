package machine

import (
	"context"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// parseNICLimits returns limits, nil for none, or what is wrong with which field of them.
func parseNICLimits(l *ashlarv1.NetworkInterfaceLimits) (limits *hostcall.NICLimits, field, wrong string) {
	limits = &hostcall.NICLimits{}
	for _, d := range []struct {
		name string
		from *ashlarv1.NetworkLimits
		to   **hostcall.NetworkLimits
	}{{"receive", l.GetReceive(), &limits.Receive}, {"transmit", l.GetTransmit(), &limits.Transmit}} {
		out := hostcall.NetworkLimits{}
		if field, wrong = takeCounts([]count{
			{"bytes_per_second", d.from.GetBytesPerSecond(), &out.BytesPerSecond},
			{"burst_bytes", d.from.GetBurstBytes(), &out.BurstBytes},
			{"packets_per_second", d.from.GetPacketsPerSecond(), &out.PacketsPerSecond},
			{"burst_packets", d.from.GetBurstPackets(), &out.BurstPackets},
		}); wrong != "" {
			return nil, d.name + "." + field, wrong
		}
		if out != (hostcall.NetworkLimits{}) {
			*d.to = &out
		}
	}
	if field, wrong = limits.Check(); wrong != "" {
		return nil, snake(field), wrong
	}
	if *limits == (hostcall.NICLimits{}) {
		return nil, "", ""
	}
	return limits, "", ""
}

// nicProto is the recorded part of a network interface.
func nicProto(n store.NIC) *ashlarv1.NetworkInterface {
	p := &ashlarv1.NetworkInterface{Network: n.Network, MacAddress: n.MAC, LinkDown: n.LinkDown, Number: int32(n.Number)}
	if l := n.Limits; l != nil {
		p.Limits = &ashlarv1.NetworkInterfaceLimits{Receive: networkLimitsProto(l.Receive), Transmit: networkLimitsProto(l.Transmit)}
	}
	return p
}

func networkLimitsProto(l *hostcall.NetworkLimits) *ashlarv1.NetworkLimits {
	if l == nil {
		return nil
	}
	return &ashlarv1.NetworkLimits{
		BytesPerSecond: signed(l.BytesPerSecond), BurstBytes: signed(l.BurstBytes),
		PacketsPerSecond: signed(l.PacketsPerSecond), BurstPackets: signed(l.BurstPackets),
	}
}

// SetNICLimits orders other limits for network interface number o.NIC.
func (g *Manager) SetNICLimits(o Order, limits *ashlarv1.NetworkInterfaceLimits) (*operation.Op, error) {
	l, field, wrong := parseNICLimits(limits)
	if wrong != "" {
		return nil, refuse.Field("limits."+field, "%s", wrong)
	}
	o.NICLimits = l
	return g.submit(kindSetNICLimits, o)
}

// SetNICLink orders the link of network interface o.NIC to be down, or up.
func (g *Manager) SetNICLink(o Order) (*operation.Op, error) { return g.submit(kindSetNICLink, o) }

// hasNIC refuses an order for a network interface that there is not. mu is held.
func (m *Machine) hasNIC(nic int) error {
	if m.rec.NIC(nic) == nil {
		return refuse.Field("network_interface", "is %d: %s has no network interface of that number", nic, m.Name())
	}
	return nil
}

// setNICLimits does a set-network-limits operation: in core, where the guest runs, then in
// the record. Cut off in between it is done again from the beginning.
func (m *Machine) setNICLimits(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	op.Progress(10, "setting limits")
	if err := m.toDevice(ctx, hostcall.Call{Method: hostcall.GuestSetNICLimits, ID: m.uid, NIC: rec.NIC, NICLimits: rec.NICLimits}); err != nil {
		return err
	}
	return m.saveNIC(rec.NIC, func(n *store.NIC) { n.Limits = rec.NICLimits })
}

// setNICLink does a set-network-link operation in the same way.
func (m *Machine) setNICLink(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	op.Progress(10, "setting the link")
	if err := m.toDevice(ctx, hostcall.Call{Method: hostcall.GuestSetNICLink, ID: m.uid, NIC: rec.NIC, LinkDown: rec.LinkDown}); err != nil {
		return err
	}
	return m.saveNIC(rec.NIC, func(n *store.NIC) { n.LinkDown = rec.LinkDown })
}

// saveNIC records a change of a network interface.
func (m *Machine) saveNIC(number int, change func(*store.NIC)) error {
	err := m.save(func(rec *store.VM) {
		rec.NICs = slices.Clone(rec.NICs)
		change(rec.NIC(number))
	})
	if err != nil {
		return refuse.Internal(err)
	}
	return nil
}
