package network

import (
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Rate is what may pass in a second, by a bucket of tokens each for bytes and for
// packets, and what may pass at once after a rest. A rate of 0 is no limit, and needs no
// burst.
type Rate struct {
	Bytes, BurstBytes     uint64
	Packets, BurstPackets uint64
}

// A Throttle counts what limits have done.
type Throttle struct {
	Waited  uint64 // how often packets had to wait for their turn
	Dropped uint64 // packets
}

const (
	tbfHandle = 1 << 16 // of the queueing discipline that lets packets wait: 1:0
	// queueMin is the least that the queue of a tap holds, in bytes: some of the
	// largest packets, of 64 KiB, that the host's kernel hands over in one piece.
	queueMin = 256 << 10
	// tick is the unit of time of the kernel's buckets, in nanoseconds
	// (/proc/net/psched).
	tick = 64
	// gsoMax is larger than any packet, of those that are cut up later, too.
	gsoMax = 1 << 17
	// Attributes of an action `police` that package nl does not have
	// (linux/pkt_cls.h).
	policeRate64   = 8
	policePktRate  = 10
	policePktBurst = 11
)

// SetLimits limits what passes the tap name, in place of the limits that it had: to the
// guest, where packets wait in a queue for bytes and are dropped beyond so many packets,
// and from the guest, where they are dropped.
func SetLimits(name string, toGuest, fromGuest Rate) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = shape(link, toGuest)
	}
	if err == nil {
		err = police(link, toGuest, fromGuest)
	}
	if err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	return nil
}

// shape lets bytes to the guest wait: its place is the tap's root. What is there is
// changed without a gap.
func shape(link netlink.Link, r Rate) error {
	tbf := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: tbfHandle, Parent: netlink.HANDLE_ROOT},
		Rate:       r.Bytes, Buffer: ticks(r.BurstBytes, r.Bytes),
		// A fifth of a second's worth may wait: TCP finds its pace by what it loses then.
		Limit: uint32(min(max(r.Bytes/5, queueMin), math.MaxUint32)),
	}
	if r.Bytes > 0 {
		if err := netlink.QdiscReplace(tbf); err != nil {
			return fmt.Errorf("set queueing discipline (CONFIG_NET_SCH_TBF): %w", err)
		}
		return nil
	}
	have, err := ours(link, "tbf")
	if err != nil || have == nil {
		return err
	}
	if err := netlink.QdiscDel(tbf); err != nil {
		return fmt.Errorf("remove queueing discipline: %w", err)
	}
	return nil
}

// ours finds what SetLimits has put at a link, nil for nothing.
func ours(link netlink.Link, kind string) (netlink.Qdisc, error) {
	all, err := netlink.QdiscList(link)
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, q := range all {
		if q.Type() == kind {
			return q, nil
		}
	}
	return nil, nil
}

// police drops what is too much: packets to the guest, packets and bytes from it.
func police(link netlink.Link, toGuest, fromGuest Rate) error {
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	have, err := ours(link, "clsact")
	if err != nil {
		return err
	}
	if have != nil {
		if err := netlink.QdiscDel(clsact); err != nil {
			return fmt.Errorf("remove old limits: %w", err)
		}
	}
	toGuest.Bytes = 0 // they wait instead
	if toGuest.Packets == 0 && fromGuest.Packets == 0 && fromGuest.Bytes == 0 {
		return nil
	}
	if err := netlink.QdiscAdd(clsact); err != nil {
		return fmt.Errorf("make room for limits (CONFIG_NET_SCH_INGRESS): %w", err)
	}
	for parent, r := range map[uint32]Rate{netlink.HANDLE_MIN_EGRESS: toGuest, netlink.HANDLE_MIN_INGRESS: fromGuest} {
		if r.Packets == 0 && r.Bytes == 0 {
			continue
		}
		if err := addPolice(link, parent, r); err != nil {
			return fmt.Errorf("drop what is too much (CONFIG_NET_ACT_POLICE, CONFIG_NET_CLS_MATCHALL): %w", err)
		}
	}
	return nil
}

// addPolice has everything that passes parent counted. The kernel takes bytes and packets
// in an action each.
func addPolice(link netlink.Link, parent uint32, r Rate) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link.Attrs().Index), Parent: parent,
		Info: netlink.MakeHandle(1, nl.Swap16(unix.ETH_P_ALL))})
	request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("matchall")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	actions := options.AddRtAttr(nl.TCA_MATCHALL_ACT, nil)
	n := 0
	add := func(fill func(*nl.RtAttr)) {
		n++
		one := actions.AddRtAttr(n, nil)
		one.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated("police"))
		fill(one.AddRtAttr(nl.TCA_ACT_OPTIONS, nil))
	}
	if r.Packets > 0 {
		add(func(a *nl.RtAttr) { policePackets(a, r) })
	}
	if r.Bytes > 0 {
		add(func(a *nl.RtAttr) { policeBytes(a, r) })
	}
	request.AddData(options)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// policePackets is an action that drops packets beyond a rate, and gives the others on.
func policePackets(a *nl.RtAttr, r Rate) {
	p := nl.TcPolice{Action: int32(netlink.TC_ACT_SHOT)}
	a.AddRtAttr(nl.TCA_POLICE_TBF, p.Serialize())
	a.AddRtAttr(nl.TCA_POLICE_RESULT, nl.Uint32Attr(uint32(netlink.TC_ACT_PIPE)))
	a.AddRtAttr(policePktRate, nl.Uint64Attr(r.Packets))
	a.AddRtAttr(policePktBurst, nl.Uint64Attr(uint64(max(1, ticks(r.BurstPackets, r.Packets)))))
}

// policeBytes is an action that drops packets beyond so many bytes.
func policeBytes(a *nl.RtAttr, r Rate) {
	p := nl.TcPolice{Action: int32(netlink.TC_ACT_SHOT), Burst: ticks(r.BurstBytes, r.Bytes), Mtu: gsoMax}
	p.Rate.Rate = uint32(min(r.Bytes, math.MaxUint32))
	var table [256]uint32 // which the kernel wants to have, and does not read
	netlink.CalcRtable(&p.Rate, table[:], -1, gsoMax, nl.LINKLAYER_ETHERNET)
	a.AddRtAttr(nl.TCA_POLICE_TBF, p.Serialize())
	a.AddRtAttr(nl.TCA_POLICE_RATE, netlink.SerializeRtab(table))
	a.AddRtAttr(nl.TCA_POLICE_RESULT, nl.Uint32Attr(uint32(netlink.TC_ACT_OK)))
	a.AddRtAttr(policeRate64, nl.Uint64Attr(r.Bytes))
}

// ticks is how long it takes until there are n tokens at so many a second.
func ticks(n, rate uint64) uint32 {
	if rate == 0 {
		return 0
	}
	return uint32(min(float64(n)/float64(rate)*(1e9/tick), math.MaxUint32))
}

// Throttled returns what the limits of the tap name have done since SetLimits.
func Throttled(name string) (toGuest, fromGuest Throttle, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return toGuest, fromGuest, fmt.Errorf("look up limits of %s: %w", name, err)
	}
	tbf, err := ours(link, "tbf")
	if err != nil {
		return toGuest, fromGuest, fmt.Errorf("look up limits of %s: %w", name, err)
	}
	if tbf != nil {
		toGuest.add((*netlink.ClassStatistics)(tbf.Attrs().Statistics), true)
	}
	for parent, t := range map[uint32]*Throttle{netlink.HANDLE_MIN_EGRESS: &toGuest, netlink.HANDLE_MIN_INGRESS: &fromGuest} {
		filters, err := netlink.FilterList(link, parent)
		if err != nil {
			return toGuest, fromGuest, fmt.Errorf("look up limits of %s: %w", name, err)
		}
		for _, f := range filters {
			m, ok := f.(*netlink.MatchAll)
			if !ok {
				continue
			}
			for _, a := range m.Actions {
				t.add((*netlink.ClassStatistics)(a.Attrs().Statistics), false)
			}
		}
	}
	return toGuest, fromGuest, nil
}

// add takes over the kernel's counts: what is over a limit waits, or is dropped.
func (t *Throttle) add(s *netlink.ClassStatistics, waits bool) {
	if s == nil || s.Queue == nil {
		return
	}
	t.Dropped += uint64(s.Queue.Drops)
	if waits {
		t.Waited += uint64(s.Queue.Overlimits)
	}
}

// SetLink connects the tap name to its bridge, or disconnects it: then no packet passes
// it, in no direction. The tap takes none of the bridge's, which drops those that vhost
// hands over all the same: its port is disabled with the tap.
func SetLink(name string, up bool) error {
	link, err := netlink.LinkByName(name)
	if err == nil && up {
		err = netlink.LinkSetUp(link)
	} else if err == nil {
		err = netlink.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("set link of %s: %w", name, err)
	}
	return nil
}
