package render

import (
	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// Panicked says whether a virtual machine runs, or is paused, whose kernel has panicked and
// was left alone: where on_panic says otherwise, it is the run before that has ended so.
func Panicked(vm *ashlarv1.VirtualMachine) bool {
	return vm.GetState() != ashlarv1.VirtualMachine_STATE_STOPPED && vm.GetStopReason() == ashlarv1.VirtualMachine_STOP_REASON_PANICKED &&
		vm.GetOnPanic() == ashlarv1.PanicAction_PANIC_ACTION_UNSPECIFIED
}

// addBoard says how the run before ended, where that is told, and what the devices on board
// are to do, where something was asked for.
func addBoard(r *Rows, vm *ashlarv1.VirtualMachine) {
	if vm.GetState() != ashlarv1.VirtualMachine_STATE_STOPPED && vm.GetStopReason() != 0 && !Panicked(vm) {
		r.Add("Last run ended:", Reason(vm))
	}
	if vm.GetWatchdog() != nil {
		r.Add("Watchdog:", words(vm.GetWatchdog().GetAction().String(), "ACTION_"))
	}
	if vm.GetOnPanic() != ashlarv1.PanicAction_PANIC_ACTION_UNSPECIFIED {
		r.Add("On panic:", words(vm.GetOnPanic().String(), "PANIC_ACTION_"))
	}
	if vm.GetSerialNumber() != "" {
		r.Add("Serial number:", vm.GetSerialNumber())
	}
	if vm.GetBare() {
		r.Add("Bare:", "no entropy, virtio console or balloon")
	}
}
