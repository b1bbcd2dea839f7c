package net

import "encoding/binary"

// Offsets in struct virtio_net_config (section 5.1.4).
const (
	cfgMAC      = 0
	cfgStatus   = 6
	cfgMaxPairs = 8
	cfgMTU      = 10
	configSize  = 12

	statusLinkUp = 1
)

// ReadConfig is the driver reading the configuration.
func (d *Device) ReadConfig(off uint64, b []byte) {
	var c [configSize]byte
	copy(c[cfgMAC:], d.c.MAC)
	binary.LittleEndian.PutUint16(c[cfgStatus:], d.status())
	binary.LittleEndian.PutUint16(c[cfgMaxPairs:], uint16(len(d.paths)))
	binary.LittleEndian.PutUint16(c[cfgMTU:], d.c.MTU)
	clear(b)
	if off < configSize {
		copy(b, c[off:])
	}
}

// WriteConfig does nothing: a modern driver sets its address otherwise.
func (d *Device) WriteConfig(uint64, []byte) {}
