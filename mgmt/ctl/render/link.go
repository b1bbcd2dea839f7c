package render

import (
	"fmt"
	"strconv"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// Links is a table with a line for each; wide ones have more columns.
func Links(links []*ashlarv1.Link, wide bool) *Rows {
	r := &Rows{Header: []string{"NAME", "MAC", "STATE", "SPEED", "MTU", "DRIVER", "DEVICE", "NODE", "VFS", "USED AS"}}
	if wide {
		r.Header = append(r.Header, "STABLE NAME")
	}
	for _, l := range links {
		line := []string{
			ID(l.GetName()), l.GetMacAddress(), linkState(l), orDash(linkSpeed(l)), strconv.Itoa(int(l.GetMtuBytes())), orDash(l.GetDriver()),
			orDash(ID(l.GetPciDevice())), optional(l.Node), orDash(linkVFs(l)), orDash(linkUses(l)),
		}
		if wide {
			line = append(line, orDash(preferred(l.GetStableNames())))
		}
		r.Add(line...)
	}
	return r
}

// Link is everything about one.
func Link(l *ashlarv1.Link) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(l.GetName()))
	for i, n := range l.GetStableNames() {
		r.Add(once(i, "Stable names:"), n)
	}
	mac := l.GetMacAddress()
	if p := l.GetPermanentMacAddress(); p != "" && p != mac {
		mac += ", made with " + p
	}
	r.Add("MAC address:", mac)
	r.Add("State:", linkState(l))
	r.Add("Speed:", orDash(linkSpeed(l)))
	r.Add("MTU:", strconv.Itoa(int(l.GetMtuBytes())))
	r.Add("Driver:", orDash(l.GetDriver()))
	r.Add("PCI device:", orDash(ID(l.GetPciDevice())))
	r.Add("NUMA node:", optional(l.Node))
	r.Add("Used by the host:", orDash(linkUses(l)))
	if l.GetTotalFunctions() == 0 {
		return r
	}
	r.Add("Virtual functions:", linkVFs(l))
	for _, f := range l.GetFunctions() {
		r.Add(fmt.Sprintf("  %d:", f.GetIndex()), strings.Join(nonEmpty(ID(f.GetPciDevice()), Function(f.GetSettings()), owner(f)), ", "))
	}
	return r
}

// owner is who has a virtual function.
func owner(f *ashlarv1.Link_Function) string {
	if f.GetVirtualMachine() == "" {
		return "free"
	}
	return "of " + ID(f.GetVirtualMachine())
}

// LinkLine is one in a line: its state, and how many virtual functions it has.
func LinkLine(l *ashlarv1.Link) string {
	return strings.Join(nonEmpty(linkState(l), linkSpeed(l), vfsOf(l)), ", ")
}

func vfsOf(l *ashlarv1.Link) string {
	if n := len(l.GetFunctions()); n > 0 {
		return fmt.Sprintf("%d virtual functions", n)
	}
	return ""
}

func linkState(l *ashlarv1.Link) string {
	switch {
	case !l.GetUp():
		return "off"
	case !l.GetCarrier():
		return "no carrier"
	}
	return "up"
}

// linkSpeed is `1 Gbit/s`, with the duplex where that is half.
func linkSpeed(l *ashlarv1.Link) string {
	n := l.GetSpeedMbps()
	if n == 0 {
		return ""
	}
	s := fmt.Sprintf("%d Mbit/s", n)
	if n%500 == 0 {
		s = strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) + " Gbit/s"
	}
	if l.GetDuplex() == ashlarv1.Link_DUPLEX_HALF {
		s += ", half duplex"
	}
	return s
}

func linkVFs(l *ashlarv1.Link) string {
	if l.GetTotalFunctions() == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", len(l.GetFunctions()), l.GetTotalFunctions())
}

func linkUses(l *ashlarv1.Link) string {
	var out []string
	for _, u := range l.GetUses() {
		text := words(u.String(), "USE_")
		if u == ashlarv1.Link_USE_NETWORK_UPLINK {
			text = "uplink of " + strings.Join(l.GetNetworks(), ", ")
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// Function is what a virtual function may do, where it is not what all may.
func Function(f *ashlarv1.VirtualFunction) string {
	var out []string
	for _, l := range f.GetLinks() {
		out = append(out, ID(l))
	}
	links := strings.Join(out, "+")
	out = nonEmpty(links, f.GetMacAddress())
	if f.GetVlan() != 0 {
		out = append(out, fmt.Sprintf("VLAN %d", f.GetVlan()))
	}
	if f.GetQos() != 0 {
		out = append(out, fmt.Sprintf("priority %d", f.GetQos()))
	}
	if f.GetMaxRateMbps() != 0 {
		out = append(out, fmt.Sprintf("at most %d Mbit/s", f.GetMaxRateMbps()))
	}
	if f != nil && f.SpoofCheck != nil && !f.GetSpoofCheck() {
		out = append(out, "no spoof check")
	}
	if f.GetTrust() {
		out = append(out, "trusted")
	}
	if f.GetLinkState() != ashlarv1.VirtualFunction_LINK_STATE_UNSPECIFIED {
		out = append(out, "link state "+words(f.GetLinkState().String(), "LINK_STATE_"))
	}
	return strings.Join(out, ", ")
}
