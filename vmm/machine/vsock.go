package machine

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/vsock"
)

// addVsock plugs in a socket device where the Spec has one.
func (g *Guest) addVsock(s *protocol.Spec, d *descriptors) *protocol.Error {
	if s.Vsock == nil {
		return nil
	}
	f, perr := d.take("vsock.vhost", s.Vsock.Vhost)
	if perr != nil {
		return perr
	}
	dev, err := vsock.New(vsock.Config{Vhost: f, CID: s.Vsock.CID})
	switch {
	case errors.Is(err, vsock.ErrConfig), errors.Is(err, unix.EADDRINUSE):
		return invalid("vsock.cid", "%v", err)
	case err != nil:
		return invalid("vsock.vhost", "%v", err)
	}
	return g.plugFixed("vsock", dev)
}
