package transport

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// addCapabilities adds the vendor capabilities that say where in the BAR what
// lies (section 4.1.4).
func (t *Transport) addCapabilities(queues int) error {
	for _, c := range []struct {
		typ    uint8
		off, n uint32
		tail   []byte
	}{
		{capCommon, commonOffset, commonSize, nil},
		{capISR, isrOffset, 1, nil},
		{capDevice, deviceOffset, areaSize, nil},
		{capNotify, notifyOffset, uint32(queues * notifyStride), []byte{notifyStride, 0, 0, 0}},
	} {
		if _, err := t.cfg.AddCapability(pci.CapVendor, vendorCap(c.typ, c.off, c.n, c.tail), nil); err != nil {
			return err
		}
	}
	return t.addWindow()
}

// vendorCap is struct virtio_pci_cap from cap_len on, with tail behind it.
func vendorCap(typ uint8, off, n uint32, tail []byte) []byte {
	b := make([]byte, 14, 14+len(tail))
	b[0] = byte(16 + len(tail)) // cap_len
	b[1] = typ
	b[2] = bar
	binary.LittleEndian.PutUint32(b[6:], off)
	binary.LittleEndian.PutUint32(b[10:], n)
	return append(b, tail...)
}

// addWindow adds the PCI configuration access capability (section 4.1.4.9):
// the driver names a BAR, an offset and a length of 1, 2 or 4, and reads or
// writes the four bytes behind as if they were there. Through ECAM, where it may read without
// an exit, it finds what was there when it wrote to the capability last.
func (t *Transport) addWindow() error {
	body := vendorCap(capPCI, 0, 0, make([]byte, pciWindowSize))
	mask := make([]byte, len(body))
	mask[2] = 0xff // bar
	for i := 6; i < len(mask); i++ {
		mask[i] = 0xff // offset, length, data
	}
	off, err := t.cfg.AddCapability(pci.CapVendor, body, mask)
	if err != nil {
		return err
	}
	t.capPCI = off
	t.cfg.HookAhead(off+16, pciWindowSize, off+2, len(body), t.windowWritten, t.windowRead)
	return nil
}

// window decodes what the driver points at; ok is false where it is nothing.
func (t *Transport) window() (off uint64, n int, ok bool) {
	var b [16]byte
	t.cfg.Bytes(t.capPCI, b[:])
	off = uint64(binary.LittleEndian.Uint32(b[8:]))
	l := binary.LittleEndian.Uint32(b[12:])
	ok = b[4] == bar && (l == 1 || l == 2 || l == 4) && off%uint64(l) == 0 && off <= barSize-uint64(l)
	return off, int(l), ok
}

func (t *Transport) windowRead() {
	if off, n, ok := t.window(); ok {
		var b [pciWindowSize]byte
		t.BARRead(bar, off, b[:n])
		t.cfg.SetBytes(t.capPCI+16, b[:n])
	}
}

func (t *Transport) windowWritten() {
	if off, n, ok := t.window(); ok {
		var b [pciWindowSize]byte
		t.cfg.Bytes(t.capPCI+16, b[:])
		t.BARWrite(bar, off, b[:n])
	}
}
