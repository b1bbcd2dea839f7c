package guest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// checkNICLimits refuses limits that stand in the field.
func checkNICLimits(field string, l *hostcall.NICLimits) error {
	if f, wrong := l.Check(); wrong != "" {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field + "." + f, Message: fmt.Sprintf("%s of a NIC %s.", f, wrong)}
	}
	return nil
}

// checkNICs validates what is said of a guest's NICs besides their networks.
func checkNICs(g *hostcall.Guest) error {
	for i, n := range g.NICs {
		if err := checkNICLimits(fmt.Sprintf("guest.nics[%d].limits", i), n.Limits); err != nil {
			return err
		}
	}
	return nil
}

// setUpNIC brings a tap that has just been made into the state that its NIC is to have.
func (m *Manager) setUpNIC(tap string, n hostcall.NIC) error {
	if n.Limits != nil {
		if _, err := m.c.Networks.SetLimits(tap, n.Limits); err != nil {
			return err
		}
	}
	if n.LinkDown {
		return m.c.Networks.SetLink(tap, false)
	}
	return nil
}

// nic finds the tap of a NIC of a guest that runs.
func (m *Manager) nic(id string, nic int) (r *run, tap string, err error) {
	if r, err = m.find(id); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(r.rec.NICs, func(n folder.Interface) bool { return n.Number == nic }) {
		return nil, "", &hostcall.Error{Code: hostcall.InvalidArgument, Field: "nic",
			Message: fmt.Sprintf("The guest has no NIC %d.", nic)}
	}
	return r, r.rec.tap(nic), nil
}

// SetNICLimits changes the limits of a NIC (hostcall.GuestSetNICLimits). They are the
// kernel's, with the tap: they hold also while core is away.
func (m *Manager) SetNICLimits(id string, nic int, l *hostcall.NICLimits) error {
	if err := checkNICLimits("nicLimits", l); err != nil {
		return err
	}
	defer m.turns.take(id)()
	r, tap, err := m.nic(id, nic)
	if err != nil {
		return err
	}
	counted, err := m.c.Networks.SetLimits(tap, l)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.rec.count(nic, counted)
	return m.writeRecord(r.rec)
}

// count adds what the former limits of a NIC have counted to that of those before them.
// What was handed out before is left as it is.
func (r *record) count(nic int, counted map[string]uint64) {
	all := make(map[int]map[string]uint64, len(r.NICs))
	maps.Copy(all, r.Counted)
	sum := make(map[string]uint64, len(counted))
	for name, n := range counted {
		sum[name] = n + all[nic][name]
	}
	all[nic] = sum
	r.Counted = all
}

// SetNICLink connects or disconnects a NIC (hostcall.GuestSetNICLink): the guest's network
// first, so that nothing passes when the VMM does not obey, and then what the guest knows.
// Cut off in between it can be done again.
func (m *Manager) SetNICLink(ctx context.Context, id string, nic int, down bool) error {
	defer m.turns.take(id)()
	r, tap, err := m.nic(id, nic)
	if err != nil {
		return err
	}
	if err := m.c.Networks.SetLink(tap, !down); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.do(ctx, protocol.Request{Method: protocol.SetLink, NIC: nic, LinkDown: down}, nil); err != nil {
		return refusal(err)
	}
	return nil
}
