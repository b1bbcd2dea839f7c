package vhost

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// HotplugRules are the system calls that New needs.
func HotplugRules() []jail.Rule {
	var rules []jail.Rule
	for _, n := range []uint64{setOwner, getFeatures} {
		rules = append(rules, jail.Allow(unix.SYS_IOCTL, "queues in the kernel (vhost) of a tap that is plugged in", jail.Masked(1, 1<<32-1, n)))
	}
	return rules
}
