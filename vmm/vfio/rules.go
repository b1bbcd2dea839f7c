package vfio

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// Rules are the system calls that a guest with devices of the host's needs, besides those of every
// Go program (mmap among them, never executable). What the ioctls do goes no further than
// the descriptors that core has handed in: devices, groups, a container and an iommufd.
func Rules() []jail.Rule {
	var rules []jail.Rule
	for _, r := range []struct {
		request uint64
		reason  string
	}{
		{deviceSetIRQs, "a guest sets up interrupts of a device"},
		{deviceReset, "a guest, its end or its removal resets a device"},
		{iommufdMap, "memory is plugged in, or the first device"},
		{iommufdUnmap, "memory is unplugged, or the last device"},
		{mapDMA, "the same of a container; reset of a device together with its bus, which has the same number"},
		{unmapDMA, "the same of a container"},
		{deviceBindIOMMUFD, "a device is plugged in"},
		{deviceAttachIOAS, "a device is plugged in"},
		{iommufdAllocIOAS, "the first device is plugged in"},
		{deviceGetInfo, "what has a device that is plugged in?"},
		{deviceGetRegion, "what has a device that is plugged in?"},
		{deviceGetIRQ, "what has a device that is plugged in?"},
		{groupStatusIoctl, "a device is plugged in by its group"},
		{groupSetContainer, "a device is plugged in by its group"},
		{groupGetDevice, "a device is plugged in by its group"},
		{setIOMMU, "the first device is plugged in by its group"},
	} {
		rules = append(rules, jail.Allow(unix.SYS_IOCTL, r.reason, jail.Equal(1, r.request)))
	}
	return append(rules,
		jail.Allow(unix.SYS_MADVISE, "memory of a device that is plugged in is not dumped", jail.Equal(2, unix.MADV_DONTDUMP)),
		jail.Allow(unix.SYS_PREAD64, "configuration space of a device, and pages of BARs that are trapped"),
		jail.Allow(unix.SYS_PWRITE64, "configuration space of a device, and pages of BARs that are trapped"),
	)
}
