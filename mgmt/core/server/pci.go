package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func pciList(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	if m.PCI, err = host.PCI(s.Facts(), c.After); err != nil {
		return nil, err
	}
	owners := s.Guests.DeviceOwners()
	for i := range m.PCI.Devices {
		d := &m.PCI.Devices[i]
		d.Owner = owners[d.Address]
	}
	return nil, nil
}

// NotifyPCI tells all who have subscribed that PCI devices have changed. It does not wait.
func (s *Server) NotifyPCI() { s.notify(hostcall.Event{PCI: true}) }

func hugepagesList(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Hugepages, err = s.Guests.Pools()
	return nil, err
}

func hugepagesSet(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	if c.HugepageSize == nil {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "hugepageSize", Message: "The call says nothing of the pool to set."}
	}
	m.Hugepages, err = s.Guests.SetPool(*c.HugepageSize)
	return nil, err
}
