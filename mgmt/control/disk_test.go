package control_test

import (
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func (l *lab) limit(r *ashlarv1.SetVirtualMachineDiskLimitsRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.SetVirtualMachineDiskLimits(ctxOf(l.t), req(r))
}

// limitsInCore is what core was told last about a disk of the guest's.
func (l *lab) limitsInCore(uid string, disk int) *protocol.DiskLimits {
	l.t.Helper()
	spec, _ := l.core.Spec(uid)
	if disk >= len(spec.DiskLimits) {
		l.t.Fatalf("core has %d limits", len(spec.DiskLimits))
	}
	return spec.DiskLimits[disk]
}

// Limits hold at once, in the record, and at the next start.
func TestDiskLimits(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	slow := &ashlarv1.DiskLimits{BytesPerSecond: 1 << 20, OperationsPerSecond: 100, BurstOperations: 7}
	told := protocol.DiskLimits{BytesPerSecond: 1 << 20, OperationsPerSecond: 100, BurstOperations: 7}
	ask := &ashlarv1.SetVirtualMachineDiskLimitsRequest{Name: vm.Name, Limits: slow}
	if op := l.done(l.limit(ask)); op.Error != nil || op.Kind != "set-disk-limits" {
		t.Fatalf("limits of a stopped machine = %v", op)
	}
	if l.core.Calls(hostcall.GuestSetDiskLimits) != 0 {
		t.Error("core was asked about a guest that does not run")
	}
	l.restartControl()
	if got := l.get(vm.Name).Disks[0].Limits; !proto.Equal(got, slow) {
		t.Errorf("limits = %v, want %v", got, slow)
	}
	l.mustStart(vm.Name)
	if got := l.limitsInCore(vm.Uid, 0); got == nil || *got != told {
		t.Errorf("started with %+v, want %+v", got, told)
	}
	ask.Limits = nil
	if op := l.done(l.limit(ask)); op.Error != nil {
		t.Fatal(op)
	}
	if got := l.limitsInCore(vm.Uid, 0); got != nil {
		t.Errorf("core has %+v, want no limits", got)
	}
	l.mustPause(vm.Name)
	l.core.Cut(hostcall.GuestSetDiskLimits) // core ends before it answers
	ask.Limits, ask.RequestId = slow, "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e31"
	one := l.done(l.limit(ask))
	if two := l.done(l.limit(ask)); one.Error != nil || one.Name != two.Name {
		t.Errorf("the same request twice = %v, %v", one, two)
	}
	if got := l.limitsInCore(vm.Uid, 0); got == nil || *got != told {
		t.Errorf("core has %+v, want %+v", got, told)
	}
	if got := l.get(vm.Name).Disks[0].Limits; !proto.Equal(got, slow) {
		t.Errorf("limits = %v, want %v", got, slow)
	}
}

func TestDiskLimitsRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	for name, tt := range map[string]struct {
		r    *ashlarv1.SetVirtualMachineDiskLimitsRequest
		want string
	}{
		"no such disk":  {&ashlarv1.SetVirtualMachineDiskLimitsRequest{Disk: int32(len(vm.Disks))}, "disk"},
		"disk -1":       {&ashlarv1.SetVirtualMachineDiskLimitsRequest{Disk: -1}, "disk"},
		"slow":          {&ashlarv1.SetVirtualMachineDiskLimitsRequest{Limits: &ashlarv1.DiskLimits{BytesPerSecond: 1}}, "limits.bytes_per_second"},
		"negative":      {&ashlarv1.SetVirtualMachineDiskLimitsRequest{Limits: &ashlarv1.DiskLimits{OperationsPerSecond: -1}}, "limits.operations_per_second"},
		"burst of what": {&ashlarv1.SetVirtualMachineDiskLimitsRequest{Limits: &ashlarv1.DiskLimits{BurstBytes: 1}}, "limits.burst_bytes"},
	} {
		tt.r.Name = vm.Name
		_, err := l.limit(tt.r)
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", tt.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	_, err := l.limit(&ashlarv1.SetVirtualMachineDiskLimitsRequest{Name: vm.Name, Etag: "x"})
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	l.core.Refuse(hostcall.GuestSetDiskLimits, &hostcall.Error{Code: hostcall.Unavailable, Message: "the VMM does not answer"})
	slow := &ashlarv1.DiskLimits{BytesPerSecond: 1 << 20}
	op := l.done(l.limit(&ashlarv1.SetVirtualMachineDiskLimitsRequest{Name: vm.Name, Limits: slow}))
	if op.Error == nil {
		t.Errorf("limits that core refused = %v", op)
	}
	if got := l.get(vm.Name).Disks[0].Limits; got != nil {
		t.Errorf("limits that core refused are recorded: %v", got)
	}
}

func (l *lab) resize(r *ashlarv1.ResizeVirtualMachineDiskRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.ResizeVirtualMachineDisk(ctxOf(l.t), req(r))
}

// A disk grows in core and in the record, whether the guest runs or not, and whoever
// goes away in between.
func TestResizeDisk(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	size := (vm.Disks[0].SizeBytes + 4095) &^ 4095
	for _, during := range []func(){
		func() {}, // stopped
		func() { l.mustStart(vm.Name) },
		func() { l.mustPause(vm.Name) },
		func() { l.core.Cut(hostcall.GuestResizeDisk) },
	} {
		during()
		size += 1 << 20
		op := l.done(l.resize(&ashlarv1.ResizeVirtualMachineDiskRequest{Name: vm.Name, SizeBytes: size}))
		if op.Error != nil || op.Kind != "resize-disk" {
			t.Fatalf("resize = %v", op)
		}
		if _, disks := l.core.Spec(vm.Uid); disks[0].Size != size {
			t.Errorf("core has %d bytes, want %d", disks[0].Size, size)
		}
		if got := l.get(vm.Name).Disks[0].SizeBytes; got != size {
			t.Errorf("recorded are %d bytes, want %d", got, size)
		}
	}
	l.restartControl()
	if got := l.get(vm.Name).Disks[0].SizeBytes; got != size {
		t.Errorf("after control's restart %d bytes, want %d", got, size)
	}
	for name, tt := range map[string]struct {
		r    *ashlarv1.ResizeVirtualMachineDiskRequest
		want string
	}{
		"smaller":       {&ashlarv1.ResizeVirtualMachineDiskRequest{SizeBytes: size - 4096}, "do not get smaller"},
		"negative":      {&ashlarv1.ResizeVirtualMachineDiskRequest{SizeBytes: -4096}, "do not get smaller"},
		"odd":           {&ashlarv1.ResizeVirtualMachineDiskRequest{SizeBytes: size + 512}, "a multiple of 4096"},
		"too large":     {&ashlarv1.ResizeVirtualMachineDiskRequest{SizeBytes: 1 << 60}, "16 TiB"},
		"no such disk":  {&ashlarv1.ResizeVirtualMachineDiskRequest{Disk: 9, SizeBytes: size}, "has disks 0, 1"},
		"negative disk": {&ashlarv1.ResizeVirtualMachineDiskRequest{Disk: -1, SizeBytes: size}, "has disks 0, 1"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.r.Name = vm.Name
			_, err := l.resize(tt.r)
			wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", tt.want)
		})
	}
	l.core.Refuse(hostcall.GuestResizeDisk, &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "size", Message: "The pool is full."})
	op := l.done(l.resize(&ashlarv1.ResizeVirtualMachineDiskRequest{Name: vm.Name, SizeBytes: size + 4096}))
	if op.Error == nil || op.Error.Code != "RESOURCE_EXHAUSTED" {
		t.Errorf("a resize that core refused = %v", op)
	}
	if got := l.get(vm.Name).Disks[0].SizeBytes; got != size {
		t.Errorf("recorded are %d bytes that the disk has not, want %d", got, size)
	}
}

// An operation on a disk is done by the next run of control, where this one ends first.
func TestResizeDiskOutlivesControl(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Stop()
	const size = 64 << 20
	res, err := l.resize(&ashlarv1.ResizeVirtualMachineDiskRequest{Name: vm.Name, SizeBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	l.restartControl()
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	if op := l.wait(res.Msg.Name); op.Error != nil {
		t.Fatalf("resize = %v", op)
	}
	if _, disks := l.core.Spec(vm.Uid); disks[0].Size != size || l.get(vm.Name).Disks[0].SizeBytes != size {
		t.Errorf("core has %d bytes, recorded are %d, want %d", disks[0].Size, l.get(vm.Name).Disks[0].SizeBytes, size)
	}
}
