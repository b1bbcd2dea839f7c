package control_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// withBoard makes a machine that edit has changed, and the images for it.
func (l *lab) withBoard(edit func(*ashlarv1.VirtualMachine)) (*ashlarv1.VirtualMachine, error) {
	l.t.Helper()
	if l.core.Calls(hostcall.ImageSeal) == 0 {
		l.upload("kernel", 10_000)
		l.upload("disk", 512*100)
	}
	want := spec("demo")
	edit(want.VirtualMachine)
	res, err := l.machines.CreateVirtualMachine(ctxOf(l.t), req(want))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func TestBoardRefused(t *testing.T) {
	l := newLab(t)
	for field, edit := range map[string]func(*ashlarv1.VirtualMachine){
		"virtual_machine.watchdog.action": func(vm *ashlarv1.VirtualMachine) { vm.Watchdog = &ashlarv1.Watchdog{Action: 77} },
		"virtual_machine.on_panic":        func(vm *ashlarv1.VirtualMachine) { vm.OnPanic = 77 },
		"virtual_machine.serial_number":   func(vm *ashlarv1.VirtualMachine) { vm.SerialNumber = strings.Repeat("x", 65) },
		"virtual_machine.balloon_bytes":   func(vm *ashlarv1.VirtualMachine) { vm.Bare, vm.BalloonBytes = true, 4096 },
		"virtual_machine.serial_ports":    func(vm *ashlarv1.VirtualMachine) { vm.Bare, vm.SerialPorts = true, []string{"agent"} },
	} {
		_, err := l.withBoard(edit)
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", field)
	}
}

// What was asked for stays, reaches core, and decides what becomes of a guest that has ended.
func TestBoard(t *testing.T) {
	for _, tt := range []struct {
		name   string
		w      ashlarv1.Watchdog_Action
		p      ashlarv1.PanicAction
		told   protocol.Board
		reason protocol.Reason
		want   ashlarv1.VirtualMachine_StopReason
		back   bool
	}{
		{"watchdog resets", ashlarv1.Watchdog_ACTION_UNSPECIFIED, 0,
			protocol.Board{Watchdog: protocol.ResetAction}, protocol.WatchdogExpired, ashlarv1.VirtualMachine_STOP_REASON_WATCHDOG, true},
		{"watchdog switches off", ashlarv1.Watchdog_ACTION_POWER_OFF, ashlarv1.PanicAction_PANIC_ACTION_RESET,
			protocol.Board{Watchdog: protocol.PowerOffAction, OnPanic: protocol.ResetAction}, protocol.WatchdogExpired, ashlarv1.VirtualMachine_STOP_REASON_WATCHDOG, false},
		{"panic resets", ashlarv1.Watchdog_ACTION_NONE, ashlarv1.PanicAction_PANIC_ACTION_RESET,
			protocol.Board{Watchdog: protocol.NoAction, OnPanic: protocol.ResetAction}, protocol.Panicked, ashlarv1.VirtualMachine_STOP_REASON_PANICKED, true},
		{"panic switches off", ashlarv1.Watchdog_ACTION_RESET, ashlarv1.PanicAction_PANIC_ACTION_POWER_OFF,
			protocol.Board{Watchdog: protocol.ResetAction, OnPanic: protocol.PowerOffAction}, protocol.Panicked, ashlarv1.VirtualMachine_STOP_REASON_PANICKED, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			vm, err := l.withBoard(func(vm *ashlarv1.VirtualMachine) {
				vm.Watchdog, vm.OnPanic, vm.SerialNumber = &ashlarv1.Watchdog{Action: tt.w}, tt.p, "RACK 7/2"
			})
			if err != nil {
				t.Fatal(err)
			}
			l.restartControl()
			l.mustStart(vm.Name)
			tt.told.SerialNumber = "RACK 7/2"
			if spec, _ := l.core.Spec(vm.Uid); spec.Board.Get() != tt.told {
				t.Errorf("core was told %+v, want %+v", spec.Board, tt.told)
			}
			if got := l.get(vm.Name); got.OnPanic != tt.p || got.SerialNumber != "RACK 7/2" || got.Watchdog == nil || got.StopReason != 0 {
				t.Errorf("machine = %v", got)
			}
			l.core.Exit(vm.Uid, string(tt.reason), "because")
			if !tt.back {
				got := l.until(vm.Name, "stopped", func(vm *ashlarv1.VirtualMachine) bool { return vm.State == ashlarv1.VirtualMachine_STATE_STOPPED })
				if got.StopReason != tt.want || got.StopMessage != "because" || got.DesiredRunning {
					t.Errorf("machine = %v", got)
				}
				return
			}
			for i := 0; l.core.Calls(hostcall.GuestStart) < 2; i++ {
				if i == 1000 {
					t.Fatalf("not started again: %v", l.get(vm.Name))
				}
				time.Sleep(10 * time.Millisecond)
			}
			l.until(vm.Name, "running", func(vm *ashlarv1.VirtualMachine) bool { return vm.State == ashlarv1.VirtualMachine_STATE_RUNNING })
			l.core.Tell(hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Running, Started: time.Now(), Before: string(tt.reason)})
			l.until(vm.Name, "told why it was started", func(vm *ashlarv1.VirtualMachine) bool {
				return vm.State == ashlarv1.VirtualMachine_STATE_RUNNING && vm.StopReason == tt.want && vm.StopMessage == ""
			})
		})
	}
}

// One that is bare stays so, and has no balloon to set.
func TestBare(t *testing.T) {
	l := newLab(t)
	vm, err := l.withBoard(func(vm *ashlarv1.VirtualMachine) { vm.Bare = true })
	if err != nil {
		t.Fatal(err)
	}
	l.restartControl()
	l.mustStart(vm.Name)
	if spec, _ := l.core.Spec(vm.Uid); spec.Board.Get() != (protocol.Board{Bare: true}) {
		t.Errorf("core was told %+v", spec.Board)
	}
	if !l.get(vm.Name).Bare {
		t.Error("it is not bare any more")
	}
	_, err = l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: 4096})
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", vm.Name)
	if _, err := l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name}); err != nil {
		t.Error(err)
	}
}

// A guest that has panicked and is left alone is shown so, paused too, until it is reset.
func TestPanicLeftAlone(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	st := hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Running, Started: time.Now(), Panicked: time.Unix(1e9, 0), Before: string(protocol.WatchdogExpired)}
	for _, st.State = range []hostcall.GuestState{hostcall.Running, hostcall.Paused} {
		l.core.Tell(st)
		got := l.until(vm.Name, string(st.State)+" and panicked", func(vm *ashlarv1.VirtualMachine) bool {
			paused := vm.State == ashlarv1.VirtualMachine_STATE_PAUSED
			return vm.StopReason == ashlarv1.VirtualMachine_STOP_REASON_PANICKED && paused == (st.State == hostcall.Paused)
		})
		if !got.DesiredRunning || got.StopMessage != "its kernel panicked at 2001-09-09 01:46:40Z and is left alone" {
			t.Errorf("machine = %v", got)
		}
	}
	if op := l.reset(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	if got := l.get(vm.Name); got.StopReason != 0 || got.StopMessage != "" {
		t.Errorf("machine = %v", got)
	}
}
