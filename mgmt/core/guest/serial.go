package guest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// checkSerial checks the names of the serial ports of a guest.
func checkSerial(g *hostcall.Guest) error {
	place, wrong := protocol.CheckPorts(g.SerialPorts)
	if wrong == "" {
		return nil
	}
	field := "guest.serialPorts"
	if place >= 0 {
		field = fmt.Sprintf("guest.serialPorts[%d]", place)
	}
	return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field, Message: field + " " + wrong + "."}
}

func (m *Manager) gatherSerial(_ *run, g *hostcall.Guest, spec *protocol.Spec, _ *fileList) error {
	for _, name := range g.SerialPorts {
		spec.Ports = append(spec.Ports, protocol.Port{Name: name})
	}
	return nil
}

// ConnectSerial connects to a serial port of a guest (hostcall.GuestConnect). Which there
// are the VMM knows; what comes out of it is not looked at here.
func (m *Manager) ConnectSerial(ctx context.Context, id, name string) (*os.File, error) {
	if !protocol.ValidPortName(name) {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "serialPort",
			Message: fmt.Sprintf("%.80q is no name of a serial port.", name)}
	}
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if err := m.notPaused(r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := r.client.stream(ctx, protocol.Request{Method: protocol.ConnectPort, PortName: name})
	if err != nil {
		return nil, serialRefusal(err, name)
	}
	return f, nil
}

// serialRefusal is refusal for an answer to ConnectPort.
func serialRefusal(err error, name string) error {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return refusal(err)
	}
	out := &hostcall.Error{Code: hostcall.FailedPrecondition}
	switch e.Code {
	case protocol.InvalidArgument: // also where the VMM is older than serial ports are
		out.Field, out.Message = "serialPort", fmt.Sprintf("The guest has no serial port %s.", name)
	case protocol.FailedPrecondition:
		out.Field, out.Message = "port", fmt.Sprintf("No program in the guest has the serial port %s open.", name)
	case protocol.ResourceExhausted:
		out.Field, out.Message = "busy", fmt.Sprintf("The serial port %s has a connection already: it takes one at a time.", name)
	default:
		return refusal(err)
	}
	return out
}
