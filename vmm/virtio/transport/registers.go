package transport

import "github.com/ashlar-hv/ashlar/vmm/virtio"

// PCI identities of modern virtio devices (section 4.1.2).
const (
	vendorVirtio = 0x1af4
	deviceBase   = 0x1040 // + virtio.ID
	revision     = 1
	// subDevice tells apart from transitional devices: 0x40 or higher.
	subDevice = 0x1100
)

// Capability types (section 4.1.4).
const (
	capCommon = 1
	capNotify = 2
	capISR    = 3
	capDevice = 4
	capPCI    = 5
)

// The one BAR and what lies where in it.
const (
	bar           = 0
	barSize       = 0x8000
	commonOffset  = 0x0000
	isrOffset     = 0x1000
	deviceOffset  = 0x2000
	notifyOffset  = 0x3000
	msixOffset    = 0x4000
	pbaOffset     = 0x5000
	areaSize      = 0x1000
	notifyStride  = 4 // notify_off_multiplier: an address, hence an ioeventfd, per queue
	commonSize    = 0x3c
	maxQueues     = 128 // vectors and notify addresses fit their areas
	isrQueue      = 1
	isrConfig     = 2
	statusMask    = virtio.Acknowledge | virtio.Driver | virtio.DriverOK | virtio.FeaturesOK | virtio.Failed
	ringFeatures  = virtio.FeatureVersion1
	pciWindowSize = 4
)

// A field is one register of the common configuration (section 4.1.4.3).
type field struct {
	off, size int
	read      func(*Transport) uint64
	write     func(*Transport, uint64) // nil: read only
}

// commonFields are in the order of their offsets.
var commonFields = []field{
	{0x00, 4, func(t *Transport) uint64 { return uint64(t.featureSelect) },
		func(t *Transport, v uint64) { t.featureSelect = uint32(v) }},
	{0x04, 4, func(t *Transport) uint64 { return half(uint64(t.offered), t.featureSelect) }, nil},
	{0x08, 4, func(t *Transport) uint64 { return uint64(t.driverSelect) },
		func(t *Transport, v uint64) { t.driverSelect = uint32(v) }},
	{0x0c, 4, func(t *Transport) uint64 { return half(uint64(t.accepted), t.driverSelect) },
		(*Transport).writeDriverFeature},
	{0x10, 2, func(t *Transport) uint64 { return uint64(t.configVector.Load()) },
		func(t *Transport, v uint64) { t.configVector.Store(uint32(t.vector(v))) }},
	{0x12, 2, func(t *Transport) uint64 { return uint64(len(t.queues)) }, nil},
	{0x14, 1, func(t *Transport) uint64 { return uint64(t.status.load()) }, (*Transport).writeStatus},
	{0x15, 1, (*Transport).readGeneration, nil},
	{0x16, 2, func(t *Transport) uint64 { return uint64(t.queueSelect) },
		func(t *Transport, v uint64) { t.queueSelect = uint16(v) }},
	{0x18, 2, queueField(func(q *queueRegs) uint64 { return uint64(q.config.Size) }),
		setQueue(func(q *queueRegs, v uint64) { q.config.Size = uint16(v) })},
	{0x1a, 2, queueField(func(q *queueRegs) uint64 { return uint64(q.vector) }), (*Transport).writeQueueVector},
	{0x1c, 2, queueField(func(q *queueRegs) uint64 { return b2u(q.enabled) }), (*Transport).writeQueueEnable},
	{0x1e, 2, queueField(func(q *queueRegs) uint64 { return uint64(q.index) }), nil},
	{0x20, 8, queueField(func(q *queueRegs) uint64 { return q.config.Desc }),
		setQueue(func(q *queueRegs, v uint64) { q.config.Desc = v })},
	{0x28, 8, queueField(func(q *queueRegs) uint64 { return q.config.Driver }),
		setQueue(func(q *queueRegs, v uint64) { q.config.Driver = v })},
	{0x30, 8, queueField(func(q *queueRegs) uint64 { return q.config.Device }),
		setQueue(func(q *queueRegs, v uint64) { q.config.Device = v })},
}

// half is the 32 bits of v that a select register picks.
func half(v uint64, sel uint32) uint64 {
	if sel > 1 {
		return 0
	}
	return v >> (32 * sel) & 0xffffffff
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// queueField reads a register of the selected queue: 0 where there is none.
func queueField(f func(*queueRegs) uint64) func(*Transport) uint64 {
	return func(t *Transport) uint64 {
		if q := t.selected(); q != nil {
			return f(q)
		}
		return 0
	}
}

// setQueue writes a register of the selected queue, which must not be enabled
// yet.
func setQueue(f func(*queueRegs, uint64)) func(*Transport, uint64) {
	return func(t *Transport, v uint64) {
		if q := t.selected(); q != nil && !q.enabled {
			f(q, v)
		}
	}
}
