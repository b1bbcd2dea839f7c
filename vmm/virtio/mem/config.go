package mem

import (
	"encoding/binary"
	"fmt"
)

// Offsets in struct virtio_mem_config (section 5.15.4). node_id, of 2 bytes, is there without
// VIRTIO_MEM_F_ACPI_PXM, too: it says nothing then.
const (
	cfgBlockSize  = 0
	cfgNodeID     = 8
	cfgAddr       = 16
	cfgRegionSize = 24
	cfgUsable     = 32
	cfgPlugged    = 40
	cfgRequested  = 48
	configSize    = 56
)

// SetRequested asks the driver to have so many bytes plugged in: now, or as soon as there
// is one. It is a wish, and the most that it gets.
func (d *Device) SetRequested(bytes uint64) error {
	p := d.mem.Pluggable()
	if p.Block == 0 || bytes%p.Block != 0 || bytes > p.Size {
		return fmt.Errorf("%d bytes: want a multiple of %d, at most %d: %w", bytes, p.Block, p.Size, ErrRequested)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes == d.requested {
		return nil
	}
	d.requested = bytes
	if d.changed == nil {
		d.untold = true
		return nil
	}
	d.changed()
	return nil
}

// Requested is what the driver is asked to have plugged in, in bytes.
func (d *Device) Requested() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requested
}

// ReadConfig is the driver reading the configuration. All of the region is usable: it
// is the number of blocks that is bounded.
func (d *Device) ReadConfig(off uint64, b []byte) {
	clear(b)
	if off >= configSize {
		return
	}
	p := d.mem.Pluggable()
	var c [configSize]byte
	le := binary.LittleEndian
	le.PutUint64(c[cfgBlockSize:], p.Block)
	le.PutUint16(c[cfgNodeID:], uint16(max(d.domain, 0)))
	le.PutUint64(c[cfgAddr:], p.GPA)
	le.PutUint64(c[cfgRegionSize:], p.Size)
	le.PutUint64(c[cfgUsable:], p.Size)
	le.PutUint64(c[cfgPlugged:], p.Plugged)
	le.PutUint64(c[cfgRequested:], d.Requested())
	copy(b, c[off:])
}

// WriteConfig does nothing: the driver may write none of it.
func (d *Device) WriteConfig(uint64, []byte) {}
