package balloon

import (
	"encoding/binary"
	"fmt"
)

// Offsets in struct virtio_balloon_config (section 5.5.4).
const (
	cfgNumPages = 0
	cfgActual   = 4
	configSize  = 8 // the fields that features of ours have
)

// SetTarget asks the driver to put bytes of memory into the balloon, and to take out
// what is more: now, or as soon as there is one. It is a wish.
func (d *Device) SetTarget(bytes uint64) error {
	if bytes%PageSize != 0 || bytes > d.max || bytes/PageSize > 1<<32-1 {
		return fmt.Errorf("%d bytes: want a multiple of %d, at most %d: %w", bytes, PageSize, d.max, ErrTarget)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	pages := uint32(bytes / PageSize)
	if pages == d.target {
		return nil
	}
	d.target = pages
	if d.changed == nil {
		d.untold = true
		return nil
	}
	d.changed()
	return nil
}

// Target is what the balloon is asked to hold in bytes.
func (d *Device) Target() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(d.target) * PageSize
}

// Actual is what the driver says that the balloon holds in bytes.
func (d *Device) Actual() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(d.actual) * PageSize
}

// config is the configuration; mu is held.
func (d *Device) config() (c [configSize]byte) {
	binary.LittleEndian.PutUint32(c[cfgNumPages:], d.target)
	binary.LittleEndian.PutUint32(c[cfgActual:], d.actual)
	return c
}

// ReadConfig is the driver reading the configuration.
func (d *Device) ReadConfig(off uint64, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.config()
	clear(b)
	if off < configSize {
		copy(b, c[off:])
	}
}

// WriteConfig is the driver writing the configuration: only actual can be written.
func (d *Device) WriteConfig(off uint64, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off >= configSize {
		return
	}
	c := d.config()
	copy(c[off:], b)
	d.actual = binary.LittleEndian.Uint32(c[cfgActual:])
}
