package transport

import (
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// A statusReg is the device status beside a number of the device's present life,
// in one word: so a data path that breaks late cannot hit the next life.
type statusReg struct {
	v atomic.Uint64 // life<<8 | status
}

func (s *statusReg) load() virtio.Status { return virtio.Status(s.v.Load()) }

func (s *statusReg) life() uint64 { return s.v.Load() >> 8 }

func (s *statusReg) or(b virtio.Status) { s.v.Or(uint64(b)) }

// reset begins a new life with status b.
func (s *statusReg) reset(b virtio.Status) { s.v.Store((s.life()+1)<<8 | uint64(b)) }

// needsReset sets NEEDS_RESET in the given life, and tells whether it was new.
func (s *statusReg) needsReset(life uint64) bool {
	for {
		old := s.v.Load()
		if old>>8 != life || old&uint64(virtio.NeedsReset) != 0 {
			return false
		}
		if s.v.CompareAndSwap(old, old|uint64(virtio.NeedsReset)) {
			return true
		}
	}
}
