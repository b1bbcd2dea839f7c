package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func hostCheck(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	result := s.Check()
	m.Check = &result
	return nil, nil
}
