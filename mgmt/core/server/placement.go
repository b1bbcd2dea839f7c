package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func guestPlacement(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Placed, err = s.Guests.Placed(c.ID)
	return nil, err
}
