package service

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// checkResults are the results as the API has them.
var checkResults = map[hostcall.CheckResult]ashlarv1.HostCheck_Result{
	hostcall.Passed: ashlarv1.HostCheck_RESULT_PASSED, hostcall.Weak: ashlarv1.HostCheck_RESULT_WEAK, hostcall.Unknown: ashlarv1.HostCheck_RESULT_UNKNOWN,
}

// CheckHost implements HostService.
func (s hostService) CheckHost(ctx context.Context, _ *connect.Request[ashlarv1.CheckHostRequest]) (*connect.Response[ashlarv1.HostCheck], error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	msg, err := s.Link.Do(ctx, hostcall.Call{Method: hostcall.HostCheck})
	if err != nil {
		return nil, refuse.Core(err, "host", nil)
	}
	if msg.Check == nil {
		return nil, refuse.Internal(errors.New("core answered without saying anything about its check"))
	}
	out := &ashlarv1.HostCheck{GuestsRefused: msg.Check.Refused}
	for _, f := range msg.Check.Findings {
		out.Findings = append(out.Findings, &ashlarv1.HostCheck_Finding{
			Name: f.Name, Result: checkResults[f.Result], Detail: f.Detail, Advice: f.Advice, Required: f.Required})
	}
	return connect.NewResponse(out), nil
}
