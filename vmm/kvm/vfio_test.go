package kvm

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVFIO(t *testing.T) {
	g := newGuest(t)
	d, err := g.vm.CreateVFIO()
	if errors.Is(err, unix.ENODEV) {
		t.Log("this host's kernel has no VFIO; the hardware tests of qemu-tests/roottest have")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Add(eventFD(t)); err == nil {
		t.Error("Add took an eventfd")
	}
	if _, err := g.vm.CreateVFIO(); err == nil {
		t.Error("a VM has two")
	}
}

// TestLevelIRQFD: several share a pin, and give it up; that one is handled the hardware tests
// of qemu-tests/roottest see.
func TestLevelIRQFD(t *testing.T) {
	g := newGuest(t)
	trigger, resample := eventFD(t), eventFD(t)
	if err := g.vm.SetRoutes([]Route{{GSI: 17, Chip: IRQChipIOAPIC, Pin: 17}}); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.LevelIRQFD(trigger, resample, 17); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.LevelIRQFD(eventFD(t), resample, 17); err != nil {
		t.Errorf("a second one on the same pin: %v", err)
	}
	if _, err := trigger.Write(binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.RemoveIRQFD(trigger, 17); err != nil {
		t.Error(err)
	}
}
