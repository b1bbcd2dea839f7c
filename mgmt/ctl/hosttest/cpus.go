package hosttest

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// SetVirtualMachineCpus changes the number at once; a guest that runs keeps one more than
// it is to have if it has no time.
func (h *Host) SetVirtualMachineCpus(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineCpusRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if err := h.changeCPUs(req.Msg); err != nil {
		return nil, err
	}
	return h.operate("set-cpus", req.Msg.GetName(), req.Msg.GetRequestId())
}

func (h *Host) changeCPUs(m *ashlarv1.SetVirtualMachineCpusRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(m.GetName())
	if err != nil {
		return err
	}
	if n := m.GetCpus(); n < 1 || n > g.vm.GetMaxCpus() {
		return violation("cpus", fmt.Sprintf("is %d: 1 to %d (max_cpus)", n, g.vm.GetMaxCpus()))
	}
	g.vm.Cpus = m.GetCpus()
	if g.vm.GetState() == ashlarv1.VirtualMachine_STATE_RUNNING {
		g.vm.PresentCpus = m.GetCpus()
		if m.GetGracePeriod().AsDuration() == 0 {
			g.vm.PresentCpus++
		}
	}
	return nil
}
