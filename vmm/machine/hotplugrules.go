package machine

import (
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
)

// HotplugRules are the system calls that a machine with hot-plug slots needs besides Rules:
// those that make a device.
func HotplugRules() []jail.Rule {
	return slices.Concat(iouring.HotplugRules(), blk.HotplugRules(), vnet.HotplugRules())
}
