package net

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// Rules are the system calls that a Device needs after New, besides reading and
// writing.
func Rules() []jail.Rule {
	return append(vhost.Rules(),
		jail.Allow(unix.SYS_IOCTL, "offloads that the guest's network driver took", jail.Masked(1, 1<<32-1, unix.TUNSETOFFLOAD)),
		jail.Allow(unix.SYS_IOCTL, "how many queues the guest's network driver uses", jail.Masked(1, 1<<32-1, unix.TUNSETQUEUE)))
}

// Offloads of a tap (linux/if_tun.h).
const (
	tunFCsum   = 1 << 0
	tunFTSO4   = 1 << 1
	tunFTSO6   = 1 << 2
	tunFTSOECN = 1 << 3
)

// prepareTap makes sure that packets of f have the header of virtio 1 before them.
func prepareTap(f *os.File) error {
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.TUNSETVNETHDRSZ, headerSize); err != nil {
		return fmt.Errorf("TUNSETVNETHDRSZ: %w (is %s a tap with IFF_VNET_HDR?)", err, f.Name())
	}
	return nil
}

// attachQueue has the interface give packets to the queue that f is, or not.
func attachQueue(f *os.File, on bool) error {
	req, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_DETACH_QUEUE)
	if on {
		req.SetUint16(unix.IFF_ATTACH_QUEUE)
	}
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETQUEUE, req); err != nil {
		return fmt.Errorf("TUNSETQUEUE: %w", err)
	}
	return nil
}

// setOffloads tells the tap what the driver can take.
func setOffloads(f *os.File, g virtio.Features) error {
	var v int
	if g.Has(featGuestCsum) { // the others mean nothing without it
		v = tunFCsum
		for _, o := range []struct {
			feat virtio.Features
			flag int
		}{{featGuestTSO4, tunFTSO4}, {featGuestTSO6, tunFTSO6}} {
			if g.Has(o.feat) {
				v |= o.flag
			}
		}
		if g.Has(featGuestECN) && v != tunFCsum {
			v |= tunFTSOECN
		}
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOFFLOAD, v); err != nil {
		return fmt.Errorf("TUNSETOFFLOAD %#x: %w", v, err)
	}
	return nil
}
