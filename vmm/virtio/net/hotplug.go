package net

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/vhost"
)

// HotplugRules are the system calls that New needs.
func HotplugRules() []jail.Rule {
	return append(vhost.HotplugRules(),
		jail.Allow(unix.SYS_IOCTL, "header of packets on a tap that is plugged in", jail.Masked(1, 1<<32-1, unix.TUNSETVNETHDRSZ)))
}
