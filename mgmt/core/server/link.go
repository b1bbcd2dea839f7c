package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func linkList(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Links, err = s.Functions.Links(c.After)
	return nil, err
}

// vfsSet goes on when control goes away: else nobody would know what there is.
func vfsSet(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if c.VFs == nil {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "vfs", Message: "The call says nothing of the virtual functions to make."}
	}
	return nil, s.Functions.Set(context.WithoutCancel(ctx), *c.VFs)
}

// NotifyLinks tells all who have subscribed that links have changed. It does not wait.
func (s *Server) NotifyLinks() { s.notify(hostcall.Event{Links: true}) }
