package machine

import (
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
	vconsole "github.com/ashlar-hv/ashlar/vmm/virtio/console"
)

// checkPorts checks the names of serial ports.
func checkPorts(s *protocol.Spec) *protocol.Error {
	switch place, wrong := protocol.CheckPorts(protocol.PortNames(s.Ports)); {
	case wrong == "":
		return nil
	case place < 0:
		return invalid("ports", "ports %s", wrong)
	default:
		field := fmt.Sprintf("ports[%d].name", place)
		return invalid(field, "%s %s", field, wrong)
	}
}

// ConnectPort connects to the serial port called name (protocol.ConnectPort).
func (g *Guest) ConnectPort(name string) (*os.File, *protocol.Error) {
	if g.console == nil {
		return nil, invalid("portName", "the machine is bare: it has no port %q", name)
	}
	f, err := g.console.Connect(name)
	if err == nil {
		return f, nil
	}
	e := &protocol.Error{Code: protocol.Unavailable, Field: "portName", Message: err.Error()}
	switch {
	case errors.Is(err, vconsole.ErrNoPort):
		e.Code = protocol.InvalidArgument
	case errors.Is(err, vconsole.ErrNotOpen):
		e.Code = protocol.FailedPrecondition
	case errors.Is(err, vconsole.ErrBusy):
		e.Code = protocol.ResourceExhausted
	}
	return nil, e
}
