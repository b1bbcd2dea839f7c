package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func hostTopology(_ context.Context, _ *Server, _ *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Topology, err = host.Topology()
	return nil, err
}
