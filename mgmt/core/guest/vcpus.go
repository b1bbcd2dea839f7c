package guest

import (
	"context"
	"fmt"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// mostVCPUs is how many processors g can come to have: what its VMM may use follows
// that, as all of them are made when it starts.
func mostVCPUs(g *hostcall.Guest) int { return max(g.VCPUs, g.MaxVCPUs) }

// SetVCPUs asks a guest to have n processors (hostcall.GuestSetVCPUs).
func (m *Manager) SetVCPUs(ctx context.Context, id string, n int) (*protocol.VCPUs, error) {
	defer m.turns.take(id)()
	return m.askVCPUs(ctx, id, func(r *run) (protocol.Request, error) {
		if n < 1 || n > r.rec.VCPUs {
			return protocol.Request{}, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "vcpus",
				Message: fmt.Sprintf("The guest can have 1 to %d processors, not %d.", r.rec.VCPUs, n)}
		}
		return protocol.Request{Method: protocol.SetVCPUs, VCPUs: n}, nil
	})
}

// VCPUs says how many processors a guest has (hostcall.GuestVCPUs).
func (m *Manager) VCPUs(ctx context.Context, id string) (*protocol.VCPUs, error) {
	return m.askVCPUs(ctx, id, func(*run) (protocol.Request, error) {
		return protocol.Request{Method: protocol.Query}, nil
	})
}

func (m *Manager) askVCPUs(ctx context.Context, id string, of func(*run) (protocol.Request, error)) (*protocol.VCPUs, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	request, err := of(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, _, err := r.client.do(ctx, request, nil)
	if err != nil {
		return nil, refusal(err)
	}
	if !m.learnVCPUs(r, response.Status) {
		return nil, &hostcall.Error{Code: hostcall.Internal, Message: "The guest's VMM tells of processors that make no sense."}
	}
	return response.Status.VCPUs, nil
}

// learnVCPUs takes over what a VMM says of its processors, and tells it where it is
// new. It is false where that makes no sense: a VMM may be in its guest's hands.
func (m *Manager) learnVCPUs(r *run, s *protocol.Status) bool {
	if s == nil || s.VCPUs == nil {
		return false
	}
	v, most := s.VCPUs, r.rec.VCPUs
	if v.Present < 1 || v.Present > most || v.Target < 1 || v.Target > most || v.Refused < 0 || v.Refused > v.Present {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.vcpus == v.Present {
		return true
	}
	r.vcpus = v.Present
	if m.running[r.rec.ID] == r && r.ran {
		m.c.Notify(m.statusOf(r))
	}
	return true
}
