package pci

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A mapping is where all BARs of a bus answer. It is read at every MMIO exit
// and changed when a driver moves a BAR, so readers take a snapshot.
type mapping struct {
	mu   sync.Mutex // held by writers
	list atomic.Pointer[[]mapped]
}

// mapped is one BAR that answers.
type mapped struct {
	gpa, size uint64
	s         *slot
	bar       int
}

func (m *mapping) load() []mapped {
	if l := m.list.Load(); l != nil {
		return *l
	}
	return nil
}

func (m *mapping) add(gpa, size uint64, s *slot, bar int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := append(slices.Clone(m.load()), mapped{gpa, size, s, bar})
	m.list.Store(&l)
}

func (m *mapping) remove(s *slot, bar int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := slices.DeleteFunc(slices.Clone(m.load()), func(e mapped) bool { return e.s == s && e.bar == bar })
	m.list.Store(&l)
}

// find returns the BAR that wholly holds the n bytes at gpa. Where a guest laid
// BARs over each other the one mapped first answers.
func (m *mapping) find(gpa, n uint64) (mapped, bool) {
	for _, e := range m.load() {
		if gpa >= e.gpa && gpa-e.gpa < e.size && n <= e.size-(gpa-e.gpa) {
			return e, true
		}
	}
	return mapped{}, false
}
