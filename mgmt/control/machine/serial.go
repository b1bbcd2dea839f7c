package machine

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// serial checks the names of serial ports.
func (c *checker) serial(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	switch place, wrong := protocol.CheckPorts(vm.SerialPorts); {
	case wrong == "":
		rec.SerialPorts = slices.Clone(vm.SerialPorts)
	case place < 0:
		c.bad(".serial_ports", "%s", wrong)
	default:
		c.bad(fmt.Sprintf(".serial_ports[%d]", place), "%s", wrong)
	}
}

var serialForm = regexp.MustCompile(`^(?:guest\.serialPorts|ports)(\[\d\])?(?:\.name)?$`)

// serialField turns a field of serial ports into that of VirtualMachine, else "".
func serialField(field string) string {
	if p := serialForm.FindStringSubmatch(field); p != nil {
		return "serial_ports" + p[1]
	}
	return ""
}

// SerialConnectable refuses a machine whose serial port of that name cannot be connected
// to now.
func (m *Machine) SerialConnectable(port string) error {
	m.mu.Lock()
	without := !m.gone && !slices.Contains(m.rec.SerialPorts, port)
	m.mu.Unlock()
	if without {
		return refuse.Precondition(refuse.NoSerialPort, m.Name(), fmt.Sprintf("%s has no serial port %.80q: make it with one (serial_ports)", m.Name(), port))
	}
	return m.askable("", true)
}
