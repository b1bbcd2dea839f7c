package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func hostTopology(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	if m.Topology, err = host.Topology(); err != nil {
		return nil, err
	}
	m.Topology.Guests, err = s.Guests.CPUs()
	return nil, err
}
