package service

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/page"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

const (
	defaultWait = time.Minute
	maxWait     = time.Hour
)

type operationService struct{ *API }

// GetOperation implements OperationService.
func (s operationService) GetOperation(_ context.Context, req *connect.Request[ashlarv1.GetOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return begun(s.Operations.Get(req.Msg.Name))
}

// ListOperations implements OperationService.
func (s operationService) ListOperations(_ context.Context, req *connect.Request[ashlarv1.ListOperationsRequest]) (*connect.Response[ashlarv1.ListOperationsResponse], error) {
	items, next, err := page.Of("operations", s.Operations.List(), (*ashlarv1.Operation).GetName, true, req.Msg.PageSize, req.Msg.PageToken)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&ashlarv1.ListOperationsResponse{Operations: items, NextPageToken: next}), nil
}

// WaitOperation implements OperationService.
func (s operationService) WaitOperation(ctx context.Context, req *connect.Request[ashlarv1.WaitOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	wait := defaultWait
	if d := req.Msg.Timeout; d != nil {
		if d.CheckValid() != nil || d.AsDuration() < 0 || d.AsDuration() > maxWait {
			return nil, refuse.Field("timeout", "is out of range: 0 to 1 hour")
		}
		wait = d.AsDuration()
	}
	op, err := s.Operations.Get(req.Msg.Name)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-op.Done():
	case <-timer.C:
	case <-ctx.Done():
		return nil, refuse.Core(ctx.Err(), "", nil)
	}
	return connect.NewResponse(op.Proto()), nil
}

// CancelOperation implements OperationService.
func (s operationService) CancelOperation(_ context.Context, req *connect.Request[ashlarv1.CancelOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	op, err := s.Operations.Get(req.Msg.Name)
	if err != nil {
		return nil, err
	}
	s.Machines.Cancel(op)
	return connect.NewResponse(op.Proto()), nil
}
