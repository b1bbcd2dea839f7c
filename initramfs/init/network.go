package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/nic/dhcp"
	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/step"
)

// A network keeps the management network up. It works beside the boot, for as
// long as the host is up: a cable may be plugged in after a day.
type network struct {
	m    *machine
	want config.Network
	// up is closed when there is an address for the first time, gaveUp when the
	// step does not wait for that any more.
	up, gaveUp chan struct{}
	// waiting says what up waits for, in words.
	waiting chan string
	// expiry fires when the lease ends without a word of the client. The kernel
	// drops the address by itself; this is for what others are told.
	expiry <-chan time.Time
}

// bringUpNetwork waits for an address, as long as it may.
func (m *machine) bringUpNetwork(ctx context.Context) (step.Outcome, error) {
	n := &network{m: m, want: m.doc.Network, up: make(chan struct{}), gaveUp: make(chan struct{}), waiting: make(chan string, 16)}
	m.spawn("network", n.run)
	waiting := "the network is not up yet"
	for {
		select {
		case waiting = <-n.waiting:
		case <-n.up:
			return m.networkIsUp()
		case <-ctx.Done():
			close(n.gaveUp)
			select {
			case <-n.up: // at the last moment
				return m.networkIsUp()
			default:
				return step.Outcome{}, errors.New(waiting)
			}
		}
	}
}

func (m *machine) networkIsUp() (step.Outcome, error) {
	info := m.host()
	return step.Outcome{Message: fmt.Sprintf("%s has %s", info.Interface, strings.Join(info.Addresses, ", "))}, nil
}

// run chooses an interface and keeps it set up.
func (n *network) run() {
	n.note("no interface " + n.wanted() + ": plug in a cable, or name another interface in the configuration")
	var i nic.Interface
	_ = n.m.hub.Wait(context.Background(), "net", func() (ok bool) {
		i, ok = n.choose()
		return ok
	})
	n.m.update(func(h *layout.HostInfo) { h.Interface = i.Name })
	n.quietOthers(i.Name)
	if err := nic.EnableIPv6("/proc", i.Name); err != nil {
		n.m.log.Printf("network", "%v", err)
	}
	if n.want.Static != nil {
		n.static(i.Name)
		return
	}
	n.note("no address by DHCP on " + i.Name + ": is there a DHCP server in its network?")
	n.runDHCP(i.Name)
}

func (n *network) wanted() string {
	if n.want.Interface == "auto" {
		return "with a carrier"
	}
	return fmt.Sprintf("%q", n.want.Interface)
}

// note says what is waited for, to the step if it still listens.
func (n *network) note(s string) {
	select {
	case n.waiting <- s:
	default:
	}
}

func (n *network) choose() (nic.Interface, bool) {
	list, err := nic.List("/sys")
	if err != nil {
		return nic.Interface{}, false
	}
	i, ok := nic.Choose(list, n.want.Interface)
	if !ok {
		for _, other := range list {
			_ = nic.Up(other.Name) // one that has just appeared; a carrier shows only then
		}
		return i, false
	}
	return i, nic.Up(i.Name) == nil
}

// quietOthers switches off what was switched on only to see a carrier. What has virtual
// functions stays on: else they do not work.
func (n *network) quietOthers(chosen string) {
	list, err := nic.List("/sys")
	for _, i := range list {
		if i.Name != chosen && i.Functions == 0 {
			err = errors.Join(err, nic.Down(i.Name))
		}
	}
	if err != nil {
		n.m.log.Printf("network", "%v", err)
	}
}

func (n *network) static(name string) {
	s := n.want.Static
	address, err1 := netip.ParsePrefix(s.Address)
	var gateway netip.Addr
	var err2 error
	if s.Gateway != "" {
		gateway, err2 = netip.ParseAddr(s.Gateway)
	}
	err := errors.Join(err1, err2)
	if err == nil {
		err = nic.Apply(name, nic.Setup{Address: address, Gateway: gateway})
	}
	if err != nil {
		n.note(err.Error())
		n.m.log.Printf("network", "%v", err)
		return
	}
	n.established(name, address, s.Gateway, s.DNS)
	n.m.startNTP(nil)
}

// lease sets the interface up as a lease says.
func (n *network) lease(name string, l dhcp.Lease) {
	err := nic.Apply(name, nic.Setup{Address: l.Address, Gateway: l.Gateway, Lifetime: l.Lifetime, MTU: l.MTU})
	if err != nil {
		n.note(err.Error())
		n.m.log.Printf("network", "%v", err)
		return
	}
	gateway := ""
	if l.Gateway.IsValid() {
		gateway = l.Gateway.String()
	}
	n.established(name, l.Address, gateway, texts(l.DNS))
	n.m.startNTP(texts(l.NTP))
}

// lost takes the address away.
func (n *network) lost(name, why string) {
	n.m.log.Printf("network", "%s has no address any more: %s", name, why)
	if err := nic.Clear(name); err != nil {
		n.m.log.Printf("network", "%v", err)
	}
	n.m.update(func(h *layout.HostInfo) { h.Addresses, h.Gateway, h.DNS = nil, "", nil })
}

// established records a set-up.
func (n *network) established(name string, address netip.Prefix, gateway string, dns []string) {
	old := n.m.host().Addresses
	n.m.update(func(h *layout.HostInfo) {
		h.Addresses, h.Gateway, h.DNS = []string{address.String()}, gateway, dns
	})
	if err := writeResolvConf("/etc/resolv.conf", dns); err != nil {
		n.m.log.Printf("network", "%v", err)
	}
	n.announce(name, address, old)
}

// announce tells of a set-up that is new. The step tells of the first one,
// unless it has given up: then what it said is not true any more.
func (n *network) announce(name string, address netip.Prefix, old []string) {
	first := !closed(n.up)
	if first {
		close(n.up)
		if !closed(n.gaveUp) {
			return
		}
		n.m.withdraw("network")
	}
	if first || len(old) != 1 || old[0] != address.String() {
		n.m.log.Printf("network", "%s now has %s: the API is at %s", name, address, endpoint(n.m.host()))
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func writeResolvConf(file string, servers []string) error {
	var b strings.Builder
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	err := os.MkdirAll("/etc", 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(b.String()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("name the resolvers: %w", err)
	}
	return nil
}

func texts(list []netip.Addr) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// retry is how programs that are started again wait.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	goodRun    = 30 * time.Second
)
