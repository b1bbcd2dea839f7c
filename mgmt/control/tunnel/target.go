package tunnel

import (
	"fmt"
	"math"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A target is what in a guest is connected to: a serial port by its name, or a port of the
// socket device.
type target struct {
	port   uint32
	serial string
}

// targetOf is what a first message names.
func targetOf(r *ashlarv1.ConnectVirtualMachineRequest) (target, error) {
	if to, ok := r.Target.(*ashlarv1.ConnectVirtualMachineRequest_SerialPort); ok {
		if !protocol.ValidPortName(to.SerialPort) {
			return target{}, refuse.Field("serial_port", "is %.80q, which is no name of a serial port", to.SerialPort)
		}
		return target{serial: to.SerialPort}, nil
	}
	if port := r.GetPort(); port != 0 && port != math.MaxUint32 {
		return target{port: port}, nil
	}
	return target{}, refuse.Field("port", "is %d: 1 to %d, or name a serial_port", r.GetPort(), uint32(math.MaxUint32-1))
}

// String is what messages call it.
func (t target) String() string {
	if t.serial != "" {
		return "serial port " + t.serial
	}
	return fmt.Sprintf("port %d", t.port)
}

func (t target) connectable(m *machine.Machine) error {
	if t.serial != "" {
		return m.SerialConnectable(t.serial)
	}
	return m.Connectable()
}

// elsewhere tells whether a later message names another target than the first one.
func elsewhere(r, first *ashlarv1.ConnectVirtualMachineRequest) bool {
	return r.GetPort() != 0 && r.GetPort() != first.GetPort() || r.GetSerialPort() != "" && r.GetSerialPort() != first.GetSerialPort()
}
