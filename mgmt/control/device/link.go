package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// LinkPrefix goes before names of links.
	LinkPrefix = "links/"
	// LinkKind is the type of the resource, for errors.
	LinkKind = "ashlar.v1/Link"
	// pathName goes before the name of a device that says where it is plugged in.
	pathName = "path-"
)

// links are those that core has told of last. All but stale is guarded by the Manager's mu.
type links struct {
	stale  chan struct{}
	known  bool
	told   []hostcall.Link
	all    []*ashlarv1.Link // by name; not written to
	byName map[string]*ashlarv1.Link
}

// LinksChanged says that what is known of links may be old. It does not wait.
func (m *Manager) LinksChanged() {
	select {
	case m.links.stale <- struct{}{}:
	default: // they are to be read anew already
	}
}

// readLinks asks core for all links.
func (m *Manager) readLinks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var all []hostcall.Link
	after := ""
	for range maxPages {
		msg, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.LinkList, After: after})
		if err != nil {
			return err
		}
		if msg.Links == nil {
			return errors.New("core answered without saying anything about links")
		}
		all = append(all, msg.Links.Links...)
		if !msg.Links.More || len(msg.Links.Links) == 0 {
			m.mu.Lock()
			m.links.known, m.links.told = true, all
			m.mu.Unlock()
			m.join()
			return nil
		}
		after = all[len(all)-1].Name
	}
	return fmt.Errorf("core tells of more than %d links", len(all))
}

// join makes resources of links, with what their PCI devices say of them.
func (m *Manager) join() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.links.known {
		return
	}
	old := m.links.all
	m.links.all, m.links.byName = nil, map[string]*ashlarv1.Link{}
	for _, told := range m.links.told {
		l := linkResource(told, m.byName)
		m.links.all = append(m.links.all, l)
		m.links.byName[l.Name] = l
		for _, n := range l.StableNames {
			m.links.byName[LinkPrefix+n] = l
		}
	}
	slices.SortFunc(m.links.all, func(a, b *ashlarv1.Link) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range old {
		if m.links.byName[l.Name] == nil {
			m.feed.Delete(l.Name)
		}
	}
	for _, l := range m.links.all {
		m.feed.Put(l.Name, l)
	}
}

// ListLinks returns all links, by name. They are not to be written to.
func (m *Manager) ListLinks() ([]*ashlarv1.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.links.known {
		return nil, refuse.Down()
	}
	return m.links.all, nil
}

// GetLink returns the link with that name, the kernel's or one that stays.
func (m *Manager) GetLink(name string) (*ashlarv1.Link, error) {
	if !strings.HasPrefix(name, LinkPrefix) || len(name) == len(LinkPrefix) {
		return nil, refuse.Field("name", "write %sNAME, such as %[1]seth1, or a stable name in place of that", LinkPrefix)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.links.known {
		return nil, refuse.Down()
	}
	l := m.links.byName[name]
	if l == nil {
		return nil, refuse.NotFound(LinkKind, name)
	}
	return l, nil
}

// Place is the name of a device that says where it is plugged in; "" where it is not known.
func Place(stableNames []string) string {
	for _, n := range stableNames {
		if strings.HasPrefix(n, pathName) {
			return n
		}
	}
	return ""
}

// linkResource is what l tells of itself, and its PCI device of it.
func linkResource(l hostcall.Link, devices map[string]*ashlarv1.PciDevice) *ashlarv1.Link {
	out := &ashlarv1.Link{
		Name: LinkPrefix + l.Name, MacAddress: l.MAC, PermanentMacAddress: l.PermanentMAC, Up: l.Up, Carrier: l.Carrier,
		SpeedMbps: int32(l.Speed), MtuBytes: int32(l.MTU), Driver: l.Driver, PciDevice: prefixed(l.Device), Node: known(l.Node),
		TotalFunctions: int32(l.TotalVFs), Networks: l.Uplink,
	}
	if l.Speed > 0 {
		out.Duplex = ashlarv1.Link_DUPLEX_HALF
		if l.Full {
			out.Duplex = ashlarv1.Link_DUPLEX_FULL
		}
	}
	if l.Management {
		out.Uses = append(out.Uses, ashlarv1.Link_USE_MANAGEMENT)
	}
	if len(l.Uplink) > 0 {
		out.Uses = append(out.Uses, ashlarv1.Link_USE_NETWORK_UPLINK)
	}
	// A device with several ports does not tell which is meant.
	if d := devices[out.PciDevice]; d != nil && len(d.NetworkInterfaces) == 1 {
		out.StableNames = d.StableNames
	}
	for i, vf := range l.VFs {
		out.Functions = append(out.Functions, &ashlarv1.Link_Function{
			Index: int32(i), PciDevice: prefixed(vf.Device), Settings: Settings(vf.VFSettings), VirtualMachine: devices[Prefix+vf.Device].GetOwner(),
		})
	}
	return out
}

// states are those of the API.
var states = map[hostcall.LinkState]ashlarv1.VirtualFunction_LinkState{
	hostcall.LinkAuto:    ashlarv1.VirtualFunction_LINK_STATE_UNSPECIFIED,
	hostcall.LinkEnable:  ashlarv1.VirtualFunction_LINK_STATE_ENABLE,
	hostcall.LinkDisable: ashlarv1.VirtualFunction_LINK_STATE_DISABLE,
}

// Settings are those of a virtual function as the API has them.
func Settings(s hostcall.VFSettings) *ashlarv1.VirtualFunction {
	check := !s.NoSpoofCheck
	return &ashlarv1.VirtualFunction{
		MacAddress: s.MAC, Vlan: int32(s.VLAN), Qos: int32(s.QoS), MaxRateMbps: int32(s.MaxRate), SpoofCheck: &check,
		Trust: s.Trust, LinkState: states[s.State],
	}
}

// ParseSettings is the opposite of Settings; wrong says what is wrong with which field.
func ParseSettings(f *ashlarv1.VirtualFunction) (s hostcall.VFSettings, field, wrong string) {
	s = hostcall.VFSettings{
		MAC: f.MacAddress, VLAN: int(f.Vlan), QoS: int(f.Qos), MaxRate: int(f.MaxRateMbps),
		NoSpoofCheck: f.SpoofCheck != nil && !*f.SpoofCheck, Trust: f.Trust, State: "unknown",
	}
	for state, of := range states {
		if of == f.LinkState {
			s.State = state
		}
	}
	field, wrong = s.Check()
	return s, settingFields[field], wrong
}

// settingFields are the fields of the API by those of hostcall.
var settingFields = map[string]string{
	"mac": "mac_address", "vlan": "vlan", "qos": "qos", "maxRate": "max_rate_mbps", "state": "link_state",
}
