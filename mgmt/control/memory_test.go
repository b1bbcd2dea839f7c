package control_test

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) setMemory(m *ashlarv1.SetVirtualMachineMemoryRequest) (*ashlarv1.VirtualMachine, error) {
	res, err := l.machines.SetVirtualMachineMemory(ctxOf(l.t), req(m))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (l *lab) memory(name string) *ashlarv1.VirtualMachineMemory {
	l.t.Helper()
	res, err := l.machines.GetVirtualMachineMemory(ctxOf(l.t), req(&ashlarv1.GetVirtualMachineMemoryRequest{Name: name}))
	if err != nil {
		l.t.Fatal(err)
	}
	return res.Msg
}

const mib = 1 << 20

// withMaximum makes a machine of 128 MiB that has so much plugged in, and can have 1 GiB more.
func (l *lab) withMaximum(plugged int64) *ashlarv1.VirtualMachine {
	l.t.Helper()
	l.withMachine("fixed")
	s := spec("demo")
	s.VirtualMachine.MaxMemoryBytes, s.VirtualMachine.HotplugMemoryBytes = 1152*mib, plugged
	res, err := l.machines.CreateVirtualMachine(ctxOf(l.t), req(s))
	if err != nil {
		l.t.Fatal(err)
	}
	return res.Msg
}

func TestMemory(t *testing.T) {
	l := newLab(t)
	vm := l.withMaximum(128 * mib)
	_, err := l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: "virtualMachines/fixed", MemoryBytes: 128 * mib})
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "without max_memory_bytes")
	_, err = l.machines.GetVirtualMachineMemory(ctxOf(t), req(&ashlarv1.GetVirtualMachineMemoryRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is stopped: start it")
	for _, n := range []int64{0, -1 << 62, 126 * mib, 129 * mib, 1154 * mib} {
		_, err := l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, MemoryBytes: n})
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "memory_bytes")
	}
	_, err = l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, Etag: "x", MemoryBytes: 128 * mib})
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")

	// A stopped machine begins with it.
	got, err := l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, Etag: vm.Etag, MemoryBytes: 384 * mib})
	if err != nil || got.HotplugMemoryBytes != 256*mib || got.MemoryBytes != 128*mib || got.MaxMemoryBytes != 1152*mib || got.Etag == vm.Etag {
		t.Fatalf("set = %v, %v", got, err)
	}
	l.mustStart(vm.Name)
	if m := l.memory(vm.Name); m.TargetBytes != 384*mib || m.ActualBytes != 128*mib || m.MaxBytes != 1152*mib || l.core.Calls(hostcall.GuestSetMemory) != 0 {
		t.Errorf("started with %v", m)
	}
	// One that runs is asked, paused or not, and keeps it over control's end and a reset.
	l.mustPause(vm.Name)
	if _, err := l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, MemoryBytes: 640 * mib}); err != nil {
		t.Fatal(err)
	}
	l.core.Plug(vm.Uid, 384*mib)
	if m := l.memory(vm.Name); m.TargetBytes != 640*mib || m.ActualBytes != 512*mib {
		t.Errorf("memory = %v", m)
	}
	l.restartControl()
	if op := l.reset(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	if m := l.memory(vm.Name); m.TargetBytes != 640*mib || m.ActualBytes != 128*mib {
		t.Errorf("after a reset: %v", m)
	}
	// What the host has not is not noted either.
	_, err = l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, MemoryBytes: 130*mib + coretest.MemoryLeft})
	wantError(t, err, connect.CodeResourceExhausted, "CORE_REFUSED", "not enough")
	if got := l.get(vm.Name).HotplugMemoryBytes; got != 512*mib {
		t.Errorf("after a refusal: %d", got)
	}
	// Where core cannot be asked it is noted, and the same request again makes up for it.
	l.core.Cut(hostcall.GuestSetMemory)
	_, err = l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, MemoryBytes: 128 * mib})
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "try again")
	if got := l.get(vm.Name).HotplugMemoryBytes; got != 0 {
		t.Errorf("with core away: %d", got)
	}
}

// What is set while a guest is being started reaches it when it runs.
func TestMemoryDuringStart(t *testing.T) {
	l := newLab(t)
	vm := l.withMaximum(0)
	l.whileStarting(vm, hostcall.GuestSetMemory, func() error {
		_, err := l.setMemory(&ashlarv1.SetVirtualMachineMemoryRequest{Name: vm.Name, MemoryBytes: 160 * mib})
		return err
	})
	if m := l.memory(vm.Name); m.TargetBytes != 160*mib {
		t.Errorf("memory = %v", m)
	}
}

func TestMaximumRefused(t *testing.T) {
	l := newLab(t)
	l.withMachine("fixed")
	for _, tt := range []struct {
		most, plugged int64
		pages         ashlarv1.MemoryBacking_Pages
		field         string
	}{
		{128 * mib, 0, 0, "max_memory_bytes"},
		{130 * mib, 0, 0, "max_memory_bytes"},
		{-1, 0, 0, "max_memory_bytes"},
		{1<<40 + 128*mib, 0, 0, "max_memory_bytes"},
		{256 * mib, 0, ashlarv1.MemoryBacking_PAGES_2MIB, "max_memory_bytes"},
		{256 * mib, 130 * mib, 0, "hotplug_memory_bytes"},
		{256 * mib, 1, 0, "hotplug_memory_bytes"},
		{256 * mib, -2 * mib, 0, "hotplug_memory_bytes"},
		{0, 2 * mib, 0, "hotplug_memory_bytes"},
	} {
		s := spec("demo")
		s.VirtualMachine.MaxMemoryBytes, s.VirtualMachine.HotplugMemoryBytes = tt.most, tt.plugged
		s.VirtualMachine.MemoryBacking = &ashlarv1.MemoryBacking{Pages: tt.pages}
		_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(s))
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "virtual_machine."+tt.field)
	}
}
