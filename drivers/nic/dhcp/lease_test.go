package dhcp

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func goodLease() Lease {
	return Lease{
		Address:  netip.MustParsePrefix("192.0.2.10/24"),
		Gateway:  netip.MustParseAddr("192.0.2.1"),
		Server:   netip.MustParseAddr("192.0.2.2"),
		DNS:      []netip.Addr{netip.MustParseAddr("198.51.100.53")},
		Lifetime: time.Hour,
	}
}

func TestCheck(t *testing.T) {
	if err := goodLease().Check(); err != nil {
		t.Fatal(err)
	}
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	for name, test := range map[string]struct {
		change func(*Lease)
		want   string // "" where it is good
	}{
		"no gateway":            {func(l *Lease) { l.Gateway = netip.Addr{} }, ""},
		"point to point":        {func(l *Lease) { l.Address = p("192.0.2.10/31"); l.Gateway = a("192.0.2.11") }, ""},
		"host route":            {func(l *Lease) { l.Address = p("192.0.2.10/32"); l.Gateway = a("10.0.0.1") }, ""},
		"link-local":            {func(l *Lease) { l.Address = p("169.254.7.7/16"); l.Gateway = netip.Addr{} }, ""},
		"MTU":                   {func(l *Lease) { l.MTU = 9000 }, ""},
		"empty":                 {func(l *Lease) { *l = Lease{} }, "not an address"},
		"loopback":              {func(l *Lease) { l.Address = p("127.0.0.1/8") }, "not an address"},
		"multicast":             {func(l *Lease) { l.Address = p("224.0.0.1/24") }, "not an address"},
		"this network":          {func(l *Lease) { l.Address = p("0.0.0.1/24") }, "not an address"},
		"limited broadcast":     {func(l *Lease) { l.Address = p("255.255.255.255/32") }, "not an address"},
		"IPv6":                  {func(l *Lease) { l.Address = p("2001:db8::1/64") }, "not an address"},
		"mapped":                {func(l *Lease) { l.Address = p("::ffff:192.0.2.10/120") }, "not an address"},
		"whole internet":        {func(l *Lease) { l.Address = p("192.0.2.10/0") }, "is a mistake"},
		"network address":       {func(l *Lease) { l.Address = p("192.0.2.0/24") }, "own address"},
		"broadcast":             {func(l *Lease) { l.Address = p("192.0.2.255/24") }, "broadcast"},
		"gateway elsewhere":     {func(l *Lease) { l.Gateway = a("203.0.113.1") }, "outside"},
		"gateway is us":         {func(l *Lease) { l.Gateway = a("192.0.2.10") }, "own gateway"},
		"gateway multicast":     {func(l *Lease) { l.Gateway = a("224.0.0.1") }, "router"},
		"gateway IPv6":          {func(l *Lease) { l.Gateway = a("fe80::1") }, "router"},
		"no server":             {func(l *Lease) { l.Server = netip.Addr{} }, "server identifier"},
		"too short":             {func(l *Lease) { l.Lifetime = time.Second }, "lifetime"},
		"negative":              {func(l *Lease) { l.Lifetime = -time.Hour }, "lifetime"},
		"too long":              {func(l *Lease) { l.Lifetime = 1e6 * time.Hour }, "lifetime"},
		"tiny MTU":              {func(l *Lease) { l.MTU = 68 }, "MTU"},
		"huge MTU":              {func(l *Lease) { l.MTU = 65535 }, "MTU"},
		"many resolvers":        {func(l *Lease) { l.DNS = make([]netip.Addr, 100) }, "more than"},
		"a resolver of nothing": {func(l *Lease) { l.DNS = []netip.Addr{{}} }, "not a host"},
		"a clock on loopback":   {func(l *Lease) { l.NTP = []netip.Addr{a("127.0.0.1")} }, "not a host"},
	} {
		l := goodLease()
		test.change(&l)
		err := l.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Check = %v, want %q", name, err, test.want)
		}
	}
}

// reply is what a server sends for goodLease.
func reply(t *testing.T, change ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply },
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)),
		dhcpv4.WithServerIP(net.IPv4(192, 0, 2, 99)), // the next server for booting: not ours
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 2))),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 3)),
		dhcpv4.WithDNS(net.IPv4(198, 51, 100, 53)),
		dhcpv4.WithLeaseTime(3600),
	}, change...)...)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := dhcpv4.FromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestLeaseOf(t *testing.T) {
	option := func(code dhcpv4.OptionCode, b ...byte) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptGeneric(code, b))
	}
	for name, test := range map[string]struct {
		change dhcpv4.Modifier
		want   func(*Lease) // nil where it is refused
	}{
		"good":           {func(*dhcpv4.DHCPv4) {}, func(*Lease) {}},
		"for ever":       {dhcpv4.WithLeaseTime(0xffffffff), func(l *Lease) { l.Lifetime = maxLifetime }},
		"MTU":            {option(dhcpv4.OptionInterfaceMTU, 5, 0xdc), func(l *Lease) { l.MTU = 1500 }},
		"damaged MTU":    {option(dhcpv4.OptionInterfaceMTU, 5), func(*Lease) {}},
		"silly MTU":      {option(dhcpv4.OptionInterfaceMTU, 0, 1), nil},
		"no router":      {option(dhcpv4.OptionRouter), func(l *Lease) { l.Gateway = netip.Addr{} }},
		"NTP":            {option(dhcpv4.OptionNTPServers, 192, 0, 2, 7), func(l *Lease) { l.NTP = []netip.Addr{netip.MustParseAddr("192.0.2.7")} }},
		"bad DNS":        {dhcpv4.WithDNS(net.IPv4zero, net.IPv4(127, 0, 0, 1), net.IPv4(198, 51, 100, 53)), func(*Lease) {}},
		"no mask":        {option(dhcpv4.OptionSubnetMask), nil},
		"holes in mask":  {option(dhcpv4.OptionSubnetMask, 255, 0, 255, 0), nil},
		"damaged mask":   {option(dhcpv4.OptionSubnetMask, 255), nil},
		"no address":     {dhcpv4.WithYourIP(net.IPv4zero), nil},
		"broadcast":      {dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 255)), nil},
		"no server":      {option(dhcpv4.OptionServerIdentifier), nil},
		"foreign router": {dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)), nil},
		"no time":        {dhcpv4.WithLeaseTime(0), nil},
	} {
		got, err := leaseOf(reply(t, test.change))
		if test.want == nil {
			if err == nil || !cmp.Equal(got, Lease{}, compareAddresses) {
				t.Errorf("%s: leaseOf = %+v, %v, want an error", name, got, err)
			}
			continue
		}
		want := goodLease()
		test.want(&want)
		if diff := cmp.Diff(want, got, compareAddresses, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func FuzzReply(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 2))), dhcpv4.WithLeaseTime(3600))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Add(m.ToBytes()[:240])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := leaseOf(m)
		if err != nil {
			if !cmp.Equal(l, Lease{}, compareAddresses) {
				t.Errorf("%+v with error %v", l, err)
			}
			return
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestReader(t *testing.T) {
	var b strings.Builder
	lease := goodLease()
	for _, e := range []Event{{Lease: &lease}, {Lost: "the lease has expired"}} {
		if err := write(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(strings.NewReader(b.String()))
	first, err := r.Read()
	if diff := cmp.Diff(&lease, first.Lease, compareAddresses); err != nil || diff != "" {
		t.Errorf("Read = %v (-want +got):\n%s", err, diff)
	}
	if second, err := r.Read(); err != nil || second.Lost != "the lease has expired" {
		t.Errorf("Read = %+v, %v", second, err)
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("Read at the end = %v, want EOF", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	good, err := json.Marshal(goodLease())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":         "{}\n",
		"both":            `{"lost":"x","lease":` + string(good) + "}\n",
		"bad lease":       `{"lease":{"address":"127.0.0.1/8"}}` + "\n",
		"unknown field":   `{"lost":"x","run":"/bin/sh"}` + "\n",
		"no JSON":         "hello\n",
		"escape sequence": `{"lost":"\u001b[2J"}` + "\n",
		"cut off":         `{"lost":"x"}`,
		"an endless line": strings.Repeat("x", 2*maxEvent),
	} {
		if e, err := NewReader(strings.NewReader(text)).Read(); err == nil || errors.Is(err, io.EOF) && name != "cut off" || e != (Event{}) {
			t.Errorf("%s: Read = %+v, %v, want an error", name, e, err)
		}
	}
}

func FuzzEvent(f *testing.F) {
	good, _ := json.Marshal(goodLease())
	f.Add([]byte(`{"lease":` + string(good) + `}`))
	f.Add([]byte(`{"lost":"x"}`))
	f.Add([]byte(`{"lease":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEvent(line)
		if err != nil && e != (Event{}) {
			t.Errorf("%+v with error %v", e, err)
		}
		if e.Lease != nil && e.Lease.Check() != nil {
			t.Errorf("accepts %+v", e.Lease)
		}
	})
}
