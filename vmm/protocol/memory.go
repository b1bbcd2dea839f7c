package protocol

import "fmt"

// Methods for memory that is plugged in and unplugged while the guest runs.
const (
	// SetMemory asks the guest to have PluggedBytes of Spec.Pluggable plugged in: now, or
	// when it can.
	SetMemory Method = "set-memory"
	// MemoryMethod asks for the Memory.
	MemoryMethod Method = "memory"
)

// Pluggable is memory that is plugged in and unplugged while the guest runs (virtio-mem).
// The file of the memory has it behind the guest's MemoryBytes, and they together have
// no more than MaxPluggable. Pages of a pool are not for it.
type Pluggable struct {
	// MaxBytes is all there may be, a multiple of PluggableUnit.
	MaxBytes uint64 `json:"maxBytes"`
	// Bytes is what the guest is asked to plug in, as SetMemory takes it.
	Bytes uint64 `json:"bytes,omitempty"`
}

// Memory is how memory is that is plugged in and unplugged. The guest never has more than
// the larger of the two.
type Memory struct {
	// RequestedBytes is what it was asked to have, PluggedBytes what it has.
	RequestedBytes uint64 `json:"requestedBytes"`
	PluggedBytes   uint64 `json:"pluggedBytes"`
}

const (
	// PluggableUnit is what Pluggable.MaxBytes is a multiple of: what Linux takes as one
	// piece, in a small guest.
	PluggableUnit = 128 << 20
	// MaxPluggable bounds the memory of a guest that has a Pluggable.
	MaxPluggable = 1 << 40

	leastBlock = 2 << 20
	mostBlocks = 16 << 10
)

// Block is the size of the pieces, in bytes, that are plugged in and unplugged: 2 MiB, and
// more where that would be over 16,384 of them.
func (p *Pluggable) Block() uint64 {
	block := uint64(leastBlock)
	for p.MaxBytes/block > mostBlocks {
		block *= 2
	}
	return block
}

// Check says what is wrong with p, by its field, for a guest that has memoryBytes besides.
// Without a Pluggable nothing is.
func (p *Pluggable) Check(memoryBytes uint64, b *Backing) (field, wrong string) {
	switch {
	case p == nil:
		return "", ""
	case p.MaxBytes == 0 || p.MaxBytes%PluggableUnit != 0 || p.MaxBytes > MaxPluggable || memoryBytes > MaxPluggable-p.MaxBytes:
		return "maxBytes", fmt.Sprintf("is %d: a multiple of 128 MiB that makes at most 1 TiB with the other memory", p.MaxBytes)
	case b.Kind().PoolSize() > 0:
		return "maxBytes", fmt.Sprintf("is %d with pages of a pool, which are set aside for good: choose %s, %s or %s",
			p.MaxBytes, DefaultPages, TransparentPages, SmallPages)
	}
	return "bytes", p.Wrong(p.Bytes)
}

// Wrong says why so many bytes cannot be asked for; "" where they can.
func (p *Pluggable) Wrong(bytes uint64) string {
	if block := p.Block(); bytes > p.MaxBytes || bytes%block != 0 {
		return fmt.Sprintf("is %d: a multiple of %d MiB, at most %d", bytes, block>>20, p.MaxBytes)
	}
	return ""
}

// Max is MaxBytes, 0 where there is no Pluggable.
func (p *Pluggable) Max() uint64 {
	if p == nil {
		return 0
	}
	return p.MaxBytes
}
