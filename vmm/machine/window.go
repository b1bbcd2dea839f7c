package machine

import (
	"errors"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// windows are the memory slots of KVM's for BARs and configuration spaces, behind those of the guest's memory.
// It implements vfio.Slots.
type windows struct {
	vm *kvm.VM

	mu   sync.Mutex
	used map[uint32]kvm.MemorySlot // guarded by mu
}

// firstWindow is the first slot of windows: memory has three at most.
const (
	firstWindow = 16
	mostWindows = 4096
)

// AddSlot implements vfio.Slots.
func (w *windows) AddSlot(gpa, size uint64, host uintptr) (uint32, error) {
	return w.add(kvm.MemorySlot{GPA: gpa, Size: size, HostAddr: host})
}

// add makes s, in a slot that is free.
func (w *windows) add(s kvm.MemorySlot) (uint32, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := uint32(firstWindow); i < mostWindows; i++ {
		if _, ok := w.used[i]; ok {
			continue
		}
		s.Slot = i
		if err := w.vm.SetMemoryRegion(s); err != nil {
			return 0, err
		}
		if w.used == nil {
			w.used = make(map[uint32]kvm.MemorySlot)
		}
		w.used[i] = s
		return i, nil
	}
	return 0, errors.New("no memory slot is left")
}

// RemoveSlot implements vfio.Slots.
func (w *windows) RemoveSlot(slot uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.used[slot]
	delete(w.used, slot)
	s.Size = 0
	return w.vm.SetMemoryRegion(s)
}

// configView shows the guest the configuration space of a function, for reading. It implements pci.View.
type configView struct {
	w     *windows
	gpa   uint64
	pages *memory.Pages
	i     int // of the page
}

// Page implements pci.View.
func (v *configView) Page() *[pci.ConfigSize]byte { return v.pages.Page(v.i) }

// Open implements pci.View.
func (v *configView) Open() error {
	_, err := v.w.add(kvm.MemorySlot{Flags: kvm.ReadOnly, GPA: v.gpa, Size: pci.ConfigSize, HostAddr: v.pages.HostAddr(v.i)})
	return err
}

// showConfig has the guest read configuration spaces without an exit. All functions of the root bus are there, and the
// process is not in its jail yet, where no slots are made unless for devices of the host's.
func (m *Machine) showConfig() error {
	var err error
	if m.views, err = memory.NewPages(m.bus.Plain()); err != nil {
		return err
	}
	n := 0
	return m.bus.Show(func(off uint64) (pci.View, error) {
		n++
		return &configView{w: &m.windows, gpa: arch.ECAMBase + off, pages: m.views, i: n - 1}, nil
	})
}
