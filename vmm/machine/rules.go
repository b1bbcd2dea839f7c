package machine

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/balloon"
	"github.com/ashlar-hv/ashlar/vmm/virtio/mem"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
)

// Jail is the jail that the process of a machine of s enters once the machine is made, and
// before it is loaded.
func Jail(s *protocol.Spec) jail.Config {
	rules := slices.Concat(jail.Messages(), Rules())
	if s.HotplugSlots > 0 {
		rules = append(rules, HotplugRules()...)
	}
	files := uint64(0) // what the jail takes for itself
	if s.VFIO != nil {
		rules = append(rules, VFIORules()...)
		files = VFIOFiles
	}
	return jail.Config{
		UID: s.Jail.UID, GID: s.Jail.GID, Threads: uint64(protocol.Threads(s.Most())), Files: files, Locked: s.LockedMemory(),
		Filter: jail.Filter{Rules: rules},
	}
}

// Rules are the system calls that a machine needs from Load on, besides those
// of every Go program.
func Rules() []jail.Rule {
	return slices.Concat(kvm.Rules(), iouring.Rules(), vnet.Rules(), balloon.Rules(), mem.Rules(), []jail.Rule{
		jail.Allow(unix.SYS_FSTAT, "sizes of kernel, initramfs and console log, and of a disk that has grown"),
		jail.Allow(unix.SYS_PREAD64, "loading kernel and initramfs; halving the console log"),
		jail.Allow(unix.SYS_PWRITE64, "console log"),
		jail.Allow(unix.SYS_SOCKETPAIR, "a connection to hand out: the console's, a serial port's", jail.Equal(0, unix.AF_UNIX),
			jail.Equal(1, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), jail.Equal(2, 0)),
		jail.Allow(unix.SYS_EVENTFD2, "events between goroutines and KVM", jail.Equal(0, 0)),
		jail.Allow(unix.SYS_FTRUNCATE, "console log, which is bounded"),
		jail.Allow(unix.SYS_FSYNC, "disks, when the guest has ended"),
	})
}
