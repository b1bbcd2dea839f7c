package machine

import (
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// watchdogActions and panicActions are the actions by their names in the API.
var (
	watchdogActions = map[ashlarv1.Watchdog_Action]protocol.Action{
		ashlarv1.Watchdog_ACTION_UNSPECIFIED: protocol.ResetAction,
		ashlarv1.Watchdog_ACTION_RESET:       protocol.ResetAction,
		ashlarv1.Watchdog_ACTION_POWER_OFF:   protocol.PowerOffAction,
		ashlarv1.Watchdog_ACTION_NONE:        protocol.NoAction,
	}
	panicActions = map[ashlarv1.PanicAction]protocol.Action{
		ashlarv1.PanicAction_PANIC_ACTION_UNSPECIFIED: "",
		ashlarv1.PanicAction_PANIC_ACTION_RESET:       protocol.ResetAction,
		ashlarv1.PanicAction_PANIC_ACTION_POWER_OFF:   protocol.PowerOffAction,
	}
)

// boardFields are the fields of protocol.Board by their names there.
var boardFields = map[string]string{"watchdog": "watchdog.action", "onPanic": "on_panic", "serialNumber": "serial_number"}

// board checks what the devices on board are to do.
func (c *checker) board(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	b := protocol.Board{SerialNumber: vm.SerialNumber, Bare: vm.Bare}
	var known bool
	if w := vm.Watchdog; w != nil {
		if b.Watchdog, known = watchdogActions[w.Action]; !known {
			c.bad(".watchdog.action", "is %d, which the host does not know", w.Action)
		}
	}
	if b.OnPanic, known = panicActions[vm.OnPanic]; !known {
		c.bad(".on_panic", "is %d, which the host does not know", vm.OnPanic)
	}
	if field, wrong := b.Check(); wrong != "" {
		c.bad("."+boardFields[field], "%s", wrong)
	}
	if b.Bare && vm.BalloonBytes > 0 {
		c.bad(".balloon_bytes", "is %d: 0 of a bare virtual machine, which has no balloon", vm.BalloonBytes)
	}
	if b.Bare && len(vm.SerialPorts) > 0 {
		c.bad(".serial_ports", "names %d: a bare virtual machine has no virtio console, which they are ports of", len(vm.SerialPorts))
	}
	if b != (protocol.Board{}) {
		rec.Board = &b
	}
}

// describeBoard is the recorded part of the board.
func describeBoard(p *ashlarv1.VirtualMachine, b protocol.Board) {
	p.SerialNumber, p.Bare = b.SerialNumber, b.Bare
	switch b.Watchdog {
	case protocol.ResetAction:
		p.Watchdog = &ashlarv1.Watchdog{Action: ashlarv1.Watchdog_ACTION_RESET}
	case protocol.PowerOffAction:
		p.Watchdog = &ashlarv1.Watchdog{Action: ashlarv1.Watchdog_ACTION_POWER_OFF}
	case protocol.NoAction:
		p.Watchdog = &ashlarv1.Watchdog{Action: ashlarv1.Watchdog_ACTION_NONE}
	}
	for name, action := range panicActions {
		if action == b.OnPanic {
			p.OnPanic = name
		}
	}
}

// comesBack reports whether a guest that has ended for that reason is to be started again. mu
// is held.
func (m *Machine) comesBack(reason string) bool {
	board := m.rec.Board.Get()
	switch protocol.Reason(reason) {
	case protocol.Reset:
		return true
	case protocol.WatchdogExpired:
		return board.Watchdog == protocol.ResetAction
	case protocol.Panicked:
		return board.OnPanic == protocol.ResetAction
	}
	return false
}

// trouble is what a guest that runs has met: the stop_reason and stop_message of one that
// does not stop.
func trouble(st hostcall.GuestStatus) (ashlarv1.VirtualMachine_StopReason, string) {
	switch {
	case !st.Panicked.IsZero():
		return ashlarv1.VirtualMachine_STOP_REASON_PANICKED,
			"its kernel panicked at " + st.Panicked.UTC().Format(time.DateTime) + "Z and is left alone"
	case st.Before == string(protocol.Panicked), st.Before == string(protocol.WatchdogExpired):
		return reasons[st.Before], ""
	}
	return ashlarv1.VirtualMachine_STOP_REASON_UNSPECIFIED, ""
}
