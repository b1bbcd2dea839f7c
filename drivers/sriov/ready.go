package sriov

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// poll is how often an interface is looked at.
const poll = 50 * time.Millisecond

// Ready switches the interface called name on, and waits until it has a carrier or ctx
// ends: a physical function that is off, or whose cable is still being negotiated, leaves its
// virtual ones in reset. carrier says whether it has one.
func Ready(ctx context.Context, name string) (carrier bool, err error) {
	l, err := netlink.LinkByName(name)
	if err == nil && l.Attrs().RawFlags&unix.IFF_UP == 0 {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return false, fmt.Errorf("switch on %s: %w", name, err)
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if l, err = netlink.LinkByName(name); err != nil {
			return false, fmt.Errorf("look at %s: %w", name, err)
		}
		if l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
			return true, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, nil
		}
	}
}
