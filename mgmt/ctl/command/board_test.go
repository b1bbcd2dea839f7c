package command

import (
	"testing"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestParseActions(t *testing.T) {
	for s, want := range map[string]ashlarv1.Watchdog_Action{
		"reset": ashlarv1.Watchdog_ACTION_RESET, "power-off": ashlarv1.Watchdog_ACTION_POWER_OFF, "none": ashlarv1.Watchdog_ACTION_NONE,
	} {
		if w, err := ParseWatchdog(s); err != nil || w.GetAction() != want {
			t.Errorf("ParseWatchdog(%q) = %v, %v", s, w, err)
		}
	}
	if w, err := ParseWatchdog(""); w != nil || err != nil {
		t.Errorf("ParseWatchdog of nothing = %v, %v", w, err)
	}
	for s, want := range map[string]ashlarv1.PanicAction{
		"reset": ashlarv1.PanicAction_PANIC_ACTION_RESET, "power-off": ashlarv1.PanicAction_PANIC_ACTION_POWER_OFF, "none": 0,
	} {
		if p, err := ParsePanicAction(s); err != nil || p != want {
			t.Errorf("ParsePanicAction(%q) = %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"Reset", "explode", "reset "} {
		if _, err := ParseWatchdog(s); err == nil {
			t.Errorf("ParseWatchdog(%q) succeeded", s)
		}
		if _, err := ParsePanicAction(s); err == nil {
			t.Errorf("ParsePanicAction(%q) succeeded", s)
		}
	}
}

// A guest that its watchdog has reset starts again, and one that it has switched off does not.
func TestEndedByWatchdog(t *testing.T) {
	vm := &ashlarv1.VirtualMachine{StopReason: ashlarv1.VirtualMachine_STOP_REASON_WATCHDOG, StopMessage: "not fed for 30s"}
	for again, want := range map[bool]string{
		true:  "demo was reset (watchdog: not fed for 30s) and starts again: with --follow the console stays attached",
		false: "demo has stopped: watchdog: not fed for 30s",
	} {
		vm.DesiredRunning = again
		if err := (&app{}).ended("demo", &viewFlags{}, vm); err == nil || err.Error() != want {
			t.Errorf("ended = %v, want %s", err, want)
		}
	}
}
