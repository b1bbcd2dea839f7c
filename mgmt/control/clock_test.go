package control_test

import (
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
)

// A stop that is taken up again after the clock was set back by a year does not wait for
// that time to come again.
func TestClockSetBack(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Stubborn(true)
	res, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, GracePeriod: durationpb.New(2 * time.Second)}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "stopping", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.State == ashlarv1.VirtualMachine_STATE_STOPPING
	})
	l.stop()
	l.client.CloseIdleConnections()
	s, err := store.Open(filepath.Join(l.core.Dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	set := 0
	err = s.Update(func(tx *store.Tx) error {
		var open []store.Operation
		if err := store.Operations.Each(tx, func(op store.Operation) error {
			if !op.Done {
				open = append(open, op)
			}
			return nil
		}); err != nil {
			return err
		}
		for _, op := range open {
			op.Deadline = time.Now().AddDate(1, 0, 0)
			if err := store.Operations.Put(tx, op); err != nil {
				return err
			}
			set++
		}
		return nil
	})
	if err != nil || set != 1 {
		t.Fatalf("%d operations are open: %v", set, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l.startControl()
	if op := l.wait(res.Msg.Name); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
	if got := l.get(vm.Name); got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_KILLED {
		t.Errorf("machine = %v", got)
	}
}
