package kvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// Sizes of struct kvm_stats_header and of struct kvm_stats_desc without its name.
const (
	statsHeaderSize = 24
	statsDescSize   = 16
)

// Stats reads the counters that KVM keeps for one vCPU, without stopping it
// (KVM_GET_STATS_FD). It may be used from any thread.
type Stats struct {
	f       *os.File
	offsets map[string]int64 // in the file, by name; shared, and not changed
}

// Stats opens the vCPU's counters. Call it before the vCPU runs: KVM would
// make the caller wait for the Run under way. like are those of another vCPU of this
// VM, which are laid out in the same way, or nil.
func (c *VCPU) Stats(like *Stats) (*Stats, error) {
	fd, err := ioctl(c.f, kvmGetStatsFD, 0)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_STATS_FD of vCPU %d: %w (want %v)", c.id, err, CapBinaryStatsFD)
	}
	s := &Stats{f: os.NewFile(uintptr(fd), "kvm-stats")}
	if like != nil {
		s.offsets = like.offsets
		return s, nil
	}
	s.offsets = make(map[string]int64)
	if err := s.readLayout(); err != nil {
		s.f.Close()
		return nil, fmt.Errorf("counters of vCPU %d: %w", c.id, err)
	}
	return s, nil
}

// readLayout learns the names and places of the counters.
func (s *Stats) readLayout() error {
	h := make([]byte, statsHeaderSize)
	if _, err := s.f.ReadAt(h, 0); err != nil {
		return err
	}
	u32 := binary.LittleEndian.Uint32
	nameSize, count, descs, data := int(u32(h[4:])), int(u32(h[8:])), int64(u32(h[16:])), int64(u32(h[20:]))
	if nameSize > 1<<10 || count > 1<<10 {
		return fmt.Errorf("%d descriptors with names of %d bytes: more than believable", count, nameSize)
	}
	step := statsDescSize + nameSize
	b := make([]byte, count*step)
	if _, err := s.f.ReadAt(b, descs); err != nil {
		return err
	}
	for ; len(b) >= step; b = b[step:] {
		name, _, _ := bytes.Cut(b[statsDescSize:step], []byte{0})
		s.offsets[string(name)] = data + int64(u32(b[8:]))
	}
	return nil
}

// Has says whether KVM keeps the counter.
func (s *Stats) Has(name string) bool {
	_, ok := s.offsets[name]
	return ok
}

// Counter reads one counter by its name in Documentation/virt/kvm, such as
// "exits" or "blocking".
func (s *Stats) Counter(name string) (uint64, error) {
	off, ok := s.offsets[name]
	if !ok {
		return 0, fmt.Errorf("KVM counter %q: this kernel has none", name)
	}
	var b [8]byte
	if _, err := s.f.ReadAt(b[:], off); err != nil {
		return 0, fmt.Errorf("KVM counter %q: %w", name, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Close closes the counters.
func (s *Stats) Close() error { return s.f.Close() }
