package command

import (
	"fmt"

	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// boardLong is what `vm create --help` says of the flags below.
const boardLong = `

--watchdog ACTION gives it a watchdog (Intel 6300ESB): a guest that has switched it on
and does not feed it in time is reset, switched off (power-off), or only counted
(none). --on-panic ACTION says what follows when the guest's kernel panics and
tells so (pvpanic): it is left alone and shown as panicked (none), reset, or switched
off. --serial-number TEXT is the serial number in its SMBIOS, up to 64 characters.

--bare leaves out the devices that it has without being asked for: entropy, virtio console
and balloon. It starts faster, has its serial port, and does not give free memory back.`

// boardFlags are the flags of `vm create` for the devices on board.
type boardFlags struct {
	watchdog, onPanic, serialNumber string
	bare                            bool
}

// add adds the flags to cmd.
func (fl *boardFlags) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&fl.watchdog, "watchdog", "", "give it a watchdog; when it is not fed: reset, power-off or none")
	f.StringVar(&fl.onPanic, "on-panic", "none", "when its kernel panics: none, reset or power-off")
	f.StringVar(&fl.serialNumber, "serial-number", "", "serial number in its SMBIOS")
	f.BoolVar(&fl.bare, "bare", false, "without devices for entropy, virtio console and balloon")
	for _, flag := range []string{"watchdog", "on-panic"} {
		a.must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(protocol.Actions(), cobra.ShellCompDirectiveNoFileComp)))
	}
}

// ParseWatchdog reads the value of --watchdog; "" is no watchdog.
func ParseWatchdog(s string) (*ashlarv1.Watchdog, error) {
	actions := map[protocol.Action]ashlarv1.Watchdog_Action{
		protocol.NoAction: ashlarv1.Watchdog_ACTION_NONE, protocol.ResetAction: ashlarv1.Watchdog_ACTION_RESET,
		protocol.PowerOffAction: ashlarv1.Watchdog_ACTION_POWER_OFF,
	}
	action, ok := actions[protocol.Action(s)]
	switch {
	case s == "":
		return nil, nil
	case !ok:
		return nil, fmt.Errorf("action %q: want reset, power-off or none", s)
	}
	return &ashlarv1.Watchdog{Action: action}, nil
}

// ParsePanicAction reads the value of --on-panic.
func ParsePanicAction(s string) (ashlarv1.PanicAction, error) {
	switch protocol.Action(s) {
	case protocol.NoAction:
		return ashlarv1.PanicAction_PANIC_ACTION_UNSPECIFIED, nil
	case protocol.ResetAction:
		return ashlarv1.PanicAction_PANIC_ACTION_RESET, nil
	case protocol.PowerOffAction:
		return ashlarv1.PanicAction_PANIC_ACTION_POWER_OFF, nil
	}
	return 0, fmt.Errorf("action %q: want none, reset or power-off", s)
}

// set puts into vm what the flags say.
func (fl *boardFlags) set(vm *ashlarv1.VirtualMachine) (err error) {
	if vm.Watchdog, err = ParseWatchdog(fl.watchdog); err != nil {
		return fmt.Errorf("--watchdog: %w", err)
	}
	if vm.OnPanic, err = ParsePanicAction(fl.onPanic); err != nil {
		return fmt.Errorf("--on-panic: %w", err)
	}
	vm.SerialNumber, vm.Bare = fl.serialNumber, fl.bare
	return nil
}
