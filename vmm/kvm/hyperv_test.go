package kvm

import (
	"errors"
	"testing"
	"time"
)

// KVM either shows Hyper-V's leaves and lets vCPUs have what they promise, or the
// error names what it lacks.
func TestHyperV(t *testing.T) {
	if want := uintptr(0xc008aec1); kvmGetSupportedHVCPUID != want {
		t.Errorf("KVM_GET_SUPPORTED_HV_CPUID = %#x, want %#x", kvmGetSupportedHVCPUID, want)
	}
	s := openKVM(t)
	leaves, err := s.SupportedHyperVCPUID()
	var missing *MissingError
	if errors.As(err, &missing) {
		t.Log(err)
		return
	}
	if err != nil || len(leaves) == 0 {
		t.Fatalf("SupportedHyperVCPUID = %v, %v", leaves, err)
	}
	g := newGuest(t)
	if err := g.cpu.EnableHyperV(); err != nil {
		t.Error(err)
	}
}

func TestSetHaltPoll(t *testing.T) {
	g := newGuest(t)
	for _, d := range []time.Duration{0, 50 * time.Microsecond} {
		if err := g.vm.SetHaltPoll(d); err != nil {
			t.Error(err)
		}
	}
	if err := g.vm.SetHaltPoll(5 * time.Second); err == nil {
		t.Error("SetHaltPoll of more than 32 bits of nanoseconds succeeded")
	}
}
