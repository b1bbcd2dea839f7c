package machine

import (
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
)

// Rules are the system calls that a machine needs from Load on, besides those
// of every Go program.
func Rules() []jail.Rule {
	return slices.Concat(kvm.Rules(), iouring.Rules(), vnet.Rules(), jail.Files())
}
