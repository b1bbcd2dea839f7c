package virtio

// Features is a set of feature bits: a device's own (0 to 23 and 50 to 127) and
// those of queue and transport (24 to 49). Only the first 64 exist.
type Features uint64

// Feature bits of queue and transport (section 6).
const (
	FeatureIndirectDesc Features = 1 << 28
	FeatureEventIdx     Features = 1 << 29
	FeatureVersion1     Features = 1 << 32
	FeatureRingPacked   Features = 1 << 34
	FeatureInOrder      Features = 1 << 35
)

// RingFeatures are what package queue can do: devices whose queues it serves offer
// them. Those that use buffers in the order in which they came offer OrderedRing.
const (
	RingFeatures = FeatureIndirectDesc | FeatureEventIdx | FeatureRingPacked
	OrderedRing  = RingFeatures | FeatureInOrder
)

// Has tells whether all bits of g are in f.
func (f Features) Has(g Features) bool { return f&g == g }

// A Status is the device status register (section 2.1).
type Status uint8

// Status bits.
const (
	Acknowledge Status = 1
	Driver      Status = 2
	DriverOK    Status = 4
	FeaturesOK  Status = 8
	NeedsReset  Status = 64
	Failed      Status = 128
)

// An ID is a device type (section 5).
type ID uint16

// Device types.
const (
	IDNet     ID = 1
	IDBlock   ID = 2
	IDConsole ID = 3
	IDEntropy ID = 4
	IDBalloon ID = 5
	IDVsock   ID = 19
	IDMemory  ID = 24
)

// NoVector in a vector register means no interrupt (section 4.1.4.3).
const NoVector = 0xffff
