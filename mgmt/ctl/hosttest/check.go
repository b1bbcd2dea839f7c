package hosttest

import (
	"context"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// CheckHost finds one thing of each kind.
func (h *Host) CheckHost(context.Context, *connect.Request[ashlarv1.CheckHostRequest]) (*connect.Response[ashlarv1.HostCheck], error) {
	return connect.NewResponse(&ashlarv1.HostCheck{
		Findings: []*ashlarv1.HostCheck_Finding{
			{Name: "vulnerabilities/mds", Result: ashlarv1.HostCheck_RESULT_PASSED, Detail: "Not affected", Required: true},
			{Name: "smt", Result: ashlarv1.HostCheck_RESULT_WEAK, Detail: "Processors share cores (SMT).", Advice: "Switch SMT off."},
			{Name: "microcode", Result: ashlarv1.HostCheck_RESULT_UNKNOWN, Detail: "The processor tells no revision."},
		},
	}), nil
}
