package blk

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// NewRing makes a ring for Config.Rings. buffers is as Config.Buffers.
func NewRing(buffers *iouring.Buffers) (*iouring.Ring, error) {
	return iouring.NewEmpty(2*queueSize, ringFiles, ringOps, buffers)
}

// HotplugRules are the system calls that New needs with Config.Rings.
func HotplugRules() []jail.Rule {
	ioctl := func(req uint64, reason string) jail.Rule {
		return jail.Allow(unix.SYS_IOCTL, reason, jail.Masked(1, 1<<32-1, req))
	}
	return []jail.Rule{
		jail.Allow(unix.SYS_STATX, "size of a file that is plugged in as a disk, and how direct I/O is aligned",
			jail.Equal(3, unix.STATX_BASIC_STATS|unix.STATX_DIOALIGN), jail.Masked(2, 1<<32-1, unix.AT_EMPTY_PATH)),
		jail.Allow(unix.SYS_LSEEK, "size of a block device that is plugged in as a disk"),
		ioctl(unix.BLKSSZGET, "blocks of a block device that is plugged in as a disk"),
		ioctl(unix.BLKPBSZGET, "blocks of a block device that is plugged in as a disk"),
	}
}
