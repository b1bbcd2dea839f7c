package netd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

const (
	clientPort = 68
	// maxPacket is more than an Ethernet frame brings.
	maxPacket = 2048
)

// errIgnored is why a packet gets no answer.
var errIgnored = errors.New("ignored")

// An answer is a packet for a guest.
type answer struct {
	packet []byte
	to     *net.UDPAddr
	lease  *Lease // what the guest now has, without Network; nil for nothing new
}

// respond answers one packet of a guest's (RFC 2131, section 4.3). Only those
// whose MAC is in the table get an answer. The error says why there is none.
func (t *table) respond(packet []byte) (answer, error) {
	req, err := dhcpv4.FromBytes(packet)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errIgnored, err)
	}
	if req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet || len(req.ClientHWAddr) != 6 {
		return answer{}, fmt.Errorf("%w: not an Ethernet client's request", errIgnored)
	}
	if !isZero(req.GatewayIPAddr) {
		return answer{}, fmt.Errorf("%w: came through a relay", errIgnored)
	}
	mac := macAddress(req.ClientHWAddr)
	address, known := t.address(mac)
	if !known {
		return answer{}, fmt.Errorf("%w: unknown MAC %s", errIgnored, mac)
	}
	if id := req.ServerIdentifier(); id != nil && !sameIP(id, t.network.gateway) {
		return answer{}, fmt.Errorf("%w: for another server", errIgnored)
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return t.reply(req, dhcpv4.MessageTypeOffer, address)
	case dhcpv4.MessageTypeRequest:
		wanted := req.RequestedIPAddress()
		if wanted == nil {
			wanted = req.ClientIPAddr
		}
		if !sameIP(wanted, address) {
			return t.reply(req, dhcpv4.MessageTypeNak, netip.Addr{})
		}
		a, err := t.reply(req, dhcpv4.MessageTypeAck, address)
		if err == nil {
			a.lease = &Lease{MAC: mac.String(), Address: address.String()}
		}
		return a, err
	case dhcpv4.MessageTypeInform:
		return t.reply(req, dhcpv4.MessageTypeAck, netip.Addr{})
	}
	return answer{}, fmt.Errorf("%w: a message of type %v", errIgnored, req.MessageType())
}

// reply builds an answer of the given type. The zero address stands for none.
func (t *table) reply(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType, address netip.Addr) (answer, error) {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(t.network.gateway.AsSlice())),
	}
	if kind != dhcpv4.MessageTypeNak {
		mods = append(mods,
			dhcpv4.WithNetmask(net.CIDRMask(t.network.subnet.Bits(), 32)),
			dhcpv4.WithRouter(t.network.gateway.AsSlice()))
		if len(t.network.dns) > 0 {
			mods = append(mods, dhcpv4.WithDNS(t.network.dns...))
		}
		if m := t.network.mtu; m != 0 { // for a driver that does not ask its device
			mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, m)))
		}
	}
	if address.IsValid() {
		mods = append(mods, dhcpv4.WithYourIP(address.AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(LeaseSeconds*time.Second)))
	}
	resp, err := dhcpv4.NewReplyFromRequest(req, mods...)
	if err != nil {
		return answer{}, fmt.Errorf("build answer: %w", err)
	}
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: clientPort}
	// A guest that renews has its address in use and listens on it. One that
	// claims an address that is not its own is answered by broadcast.
	if mine, ok := t.address(macAddress(req.ClientHWAddr)); ok && kind != dhcpv4.MessageTypeNak && sameIP(req.ClientIPAddr, mine) {
		to.IP = mine.AsSlice()
	}
	return answer{packet: resp.ToBytes(), to: to}, nil
}

func sameIP(ip net.IP, a netip.Addr) bool {
	got, ok := netip.AddrFromSlice(ip)
	return ok && got.Unmap() == a
}

func isZero(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
