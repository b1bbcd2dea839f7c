package render

import (
	"bytes"
	"strings"
	"testing"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestBoard(t *testing.T) {
	const (
		running, paused   = ashlarv1.VirtualMachine_STATE_RUNNING, ashlarv1.VirtualMachine_STATE_PAUSED
		panicked, starved = ashlarv1.VirtualMachine_STOP_REASON_PANICKED, ashlarv1.VirtualMachine_STOP_REASON_WATCHDOG
		reset             = ashlarv1.PanicAction_PANIC_ACTION_RESET
	)
	for _, tt := range []struct {
		vm    *ashlarv1.VirtualMachine
		state string
		shown []string
	}{
		{&ashlarv1.VirtualMachine{State: running}, "running", nil},
		{&ashlarv1.VirtualMachine{State: running, StopReason: panicked, StopMessage: "at noon"}, "running (panicked)", []string{"at noon"}},
		{&ashlarv1.VirtualMachine{State: running, Problems: []string{"disk 0 fails", "no tap"}}, "running", []string{"Problem:        disk 0 fails", "Problem:        no tap"}},
		{&ashlarv1.VirtualMachine{State: paused, StopReason: panicked}, "paused (panicked)", nil},
		{&ashlarv1.VirtualMachine{State: running, StopReason: panicked, OnPanic: reset}, "running", []string{"Last run ended:  panicked", "On panic:        reset"}},
		{&ashlarv1.VirtualMachine{State: running, StopReason: starved, SerialNumber: "7", Watchdog: &ashlarv1.Watchdog{Action: ashlarv1.Watchdog_ACTION_POWER_OFF}},
			"running", []string{"Last run ended:  watchdog", "Watchdog:        power off", "Serial number:   7"}},
		{&ashlarv1.VirtualMachine{State: running, Bare: true}, "running", []string{"Bare:           no entropy, virtio console or balloon"}},
		{&ashlarv1.VirtualMachine{State: ashlarv1.VirtualMachine_STATE_STOPPED, StopReason: starved}, "stopped (watchdog)", nil},
	} {
		if got := State(tt.vm); got != tt.state {
			t.Errorf("State(%v) = %q, want %q", tt.vm, got, tt.state)
		}
		var b bytes.Buffer
		if err := VirtualMachine(tt.vm).Write(&b); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.shown {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%v: want %q in\n%s", tt.vm, want, b.String())
			}
		}
		if len(tt.shown) == 0 && (strings.Contains(b.String(), "Last run") || strings.Contains(b.String(), "Watchdog")) {
			t.Errorf("%v:\n%s", tt.vm, b.String())
		}
	}
}
