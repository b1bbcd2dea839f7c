package hostdevice

import (
	"errors"
	"slices"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Functions chooses virtual functions of network cards for guests, and sets them up
// (mgmt/core/sriov.Manager).
type Functions interface {
	// Hold keeps virtual functions from being made or removed until release is called.
	Hold() (release func())
	// Choose chooses one of those that free says nobody has, for a guest whose memory is on
	// these NUMA nodes. Hold must be held.
	Choose(vf hostcall.VF, nodes []int, free func(address string) bool) (address string, err error)
	// Prepare gives one its settings, and Release takes them back.
	Prepare(address string, s hostcall.VFSettings) error
	Release(address string) error
	// Online makes sure that the virtual function of an NVMe controller works. Others do.
	Online(d *pci.Device) error
}

// function chooses the virtual function that w asks for; "" where that was refused. One that
// the guest was given before, by a call that was cut off, is that.
func (c *checker) function(w hostcall.HostDevice) (string, error) {
	held := c.s.all()
	for _, h := range held {
		if h.Guest == c.guest && h.Number == w.Number && h.VF != nil && !h.Idle {
			return h.Address, nil
		}
	}
	free := func(address string) bool {
		i := slices.IndexFunc(held, func(h Held) bool { return h.Address == address })
		return !slices.Contains(c.with, address) && (i < 0 || c.later && !held[i].NoReset)
	}
	address, err := c.s.c.Functions.Choose(*w.VF, c.nodes, free)
	var refused *hostcall.Error
	if errors.As(err, &refused) && len(refused.Violations) > 0 {
		c.wrong = append(c.wrong, refused.Violations...)
		return "", nil
	}
	return address, err
}

// findFunction is find of a virtual function that is to be chosen.
func (c *checker) findFunction(w hostcall.HostDevice) (*pci.Device, error) {
	address, err := c.function(w)
	c.with = append(c.with, address)
	if address == "" || err != nil {
		return nil, err
	}
	return c.inv.Read(address)
}

// prepare has a virtual function that a guest is to have do what it should.
func (s *Set) prepare(h Held, d *pci.Device) error {
	if h.VF != nil {
		return s.c.Functions.Prepare(h.Address, *h.VF)
	}
	return s.c.Functions.Online(d)
}

// reset takes back what prepare has given a virtual function.
func (s *Set) reset(h Held) {
	if h.VF == nil {
		return
	}
	if err := s.c.Functions.Release(h.Address); err != nil {
		s.c.Log.Warn("a virtual function keeps its settings", "device", h.Address, "error", err)
	}
}
