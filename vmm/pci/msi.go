package pci

import (
	"encoding/binary"
	"fmt"
)

// An MSI is a function's MSI capability (section 7.7.1) with one message, a 64-bit
// address and no mask: all of it lies in configuration space, so that it needs no BAR. Its
// methods are called with the lock of the function's slot held.
type MSI struct {
	cfg    *Config
	capOff int
	vector Vector
	open   bool        // Unmask was called last
	report func(error) // the vector did not take its message
}

// Offsets in the capability.
const (
	msiControl = 0x02
	msiAddress = 0x04
	msiData    = 0x0c
	msiEnd     = 0x0e

	msiEnable = 1 << 0
	msi64     = 1 << 7
)

// NewMSI adds an MSI capability to cfg. changed is called when the guest has turned it on
// or off, or changed its message.
func NewMSI(cfg *Config, r MSIRouter, changed func(), report func(error)) (*MSI, error) {
	var body, mask [msiEnd - 2]byte
	binary.LittleEndian.PutUint16(body[0:], msi64)
	binary.LittleEndian.PutUint16(mask[0:], msiEnable)
	binary.LittleEndian.PutUint32(mask[msiAddress-2:], 0xfffffffc)
	binary.LittleEndian.PutUint32(mask[msiAddress+2:], 0xffffffff)
	binary.LittleEndian.PutUint16(mask[msiData-2:], 0xffff)
	off, err := cfg.AddCapability(CapMSI, body[:], mask[:])
	if err != nil {
		return nil, err
	}
	m := &MSI{cfg: cfg, capOff: off, report: report}
	if m.vector, err = r.NewVector(); err != nil {
		return nil, fmt.Errorf("make MSI vector: %w", err)
	}
	cfg.Hook(off+msiControl, msiEnd-msiControl, func() { m.written(); changed() }, nil)
	return m, nil
}

// written brings the vector in line with the registers.
func (m *MSI) written() {
	var b [msiEnd]byte
	m.cfg.Bytes(m.capOff, b[:])
	address := binary.LittleEndian.Uint64(b[msiAddress:])
	// Without an address there is no message yet, or no more.
	on := binary.LittleEndian.Uint16(b[msiControl:])&msiEnable != 0 && address != 0
	var err error
	switch {
	case on:
		err = m.vector.Set(address, uint32(binary.LittleEndian.Uint16(b[msiData:])))
		if err == nil && !m.open {
			err = m.vector.Unmask()
		}
		on = err == nil
	case m.open:
		err = m.vector.Mask()
	}
	if err != nil {
		// It may not go on with an older message.
		if merr := m.vector.Mask(); merr != nil {
			m.report(merr)
		}
		m.report(fmt.Errorf("MSI: %w", err))
	}
	m.open = on
}

// Signal interrupts, where the guest has turned MSI on.
func (m *MSI) Signal() {
	if !m.open {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := m.vector.EventFD().Write(one[:]); err != nil {
		m.report(fmt.Errorf("MSI: %w", err))
	}
}

// Close closes the vector.
func (m *MSI) Close() error { return m.vector.Close() }
