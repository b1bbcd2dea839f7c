package transport

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// readCommon fills b with the common configuration at off. Every width works;
// a register is evaluated when it is touched.
func (t *Transport) readCommon(off int, b []byte) {
	clear(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range commonFields {
		if lo, hi := clip(f, off, len(b)); lo < hi {
			var v [8]byte
			binary.LittleEndian.PutUint64(v[:], f.read(t))
			copy(b[lo-off:hi-off], v[lo-f.off:])
		}
	}
}

// writeCommon takes a write of any width: a register that is written in part
// keeps the rest of its bytes, as 64-bit ones do when written in halves.
func (t *Transport) writeCommon(off int, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range commonFields {
		lo, hi := clip(f, off, len(b))
		if lo >= hi || f.write == nil {
			continue
		}
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], f.read(t))
		copy(v[lo-f.off:hi-f.off], b[lo-off:])
		f.write(t, binary.LittleEndian.Uint64(v[:]))
	}
}

// clip returns which bytes of f an access of n bytes at off touches.
func clip(f field, off, n int) (lo, hi int) {
	return max(f.off, off), min(f.off+f.size, off+n)
}

// selected is the queue that queue_select picks, nil where there is none.
func (t *Transport) selected() *queueRegs {
	if int(t.queueSelect) >= len(t.queues) {
		return nil
	}
	return t.queues[t.queueSelect]
}

// vector is v where there is such an MSI-X vector, else NoVector (section
// 4.1.5.1.2).
func (t *Transport) vector(v uint64) uint16 {
	if v >= uint64(t.msix.Len()) {
		return virtio.NoVector
	}
	return uint16(v)
}

func (t *Transport) writeDriverFeature(v uint64) {
	if t.status.load()&virtio.FeaturesOK != 0 || t.driverSelect > 1 {
		return
	}
	shift := 32 * t.driverSelect
	t.accepted = t.accepted&^(0xffffffff<<shift) | virtio.Features(v<<shift)
}

// readGeneration tells the config generation: it moves on when the driver may
// have read a configuration that has changed since (section 2.5.1).
func (t *Transport) readGeneration() uint64 { return uint64(uint8(t.generation.Load())) }

func (t *Transport) writeQueueVector(v uint64) {
	if q := t.selected(); q != nil {
		q.setVector(t.vector(v))
	}
}

func (t *Transport) writeQueueEnable(v uint64) {
	s := t.status.load()
	q := t.selected()
	if q == nil || v != 1 || s&virtio.FeaturesOK == 0 || s&virtio.DriverOK != 0 {
		return // a driver must not disable a queue this way, or enable one late
	}
	q.enabled = true
}

// writeStatus is the driver's half of the status state machine (section 3.1.1).
func (t *Transport) writeStatus(v uint64) {
	if v == 0 {
		t.reset()
		return
	}
	old := t.status.load()
	set := virtio.Status(v) & statusMask &^ old // bits are only ever added
	if set&virtio.FeaturesOK != 0 && !t.negotiate() {
		set &^= virtio.FeaturesOK
	}
	t.status.or(set)
	if set&virtio.DriverOK != 0 {
		if (old|set)&virtio.FeaturesOK == 0 {
			t.broken(errNoFeatures)
			return
		}
		t.activate()
	}
}

// negotiate says whether the device can work with what the driver accepted: a
// subset of what it offers, with VERSION_1 (section 6.1) and what the device requires.
func (t *Transport) negotiate() bool {
	need := virtio.FeatureVersion1
	if r, ok := t.dev.(virtio.Requirer); ok {
		need |= r.Requires()
	}
	return t.accepted&^t.offered == 0 && t.accepted.Has(need)
}
