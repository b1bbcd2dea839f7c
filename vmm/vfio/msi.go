package vfio

import (
	"encoding/binary"
	"errors"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// Of the MSI capability (section 7.7.1).
const (
	msiControl  = 0x02
	msiAddress  = 0x04
	msiEnable   = 1 << 0
	msiCapable  = 7 << 1 // log2 of the messages that there may be
	msiMultiple = 7 << 4 // of those that the guest wants
	msi64       = 1 << 7
	msiMasks    = 1 << 8
)

// An msi is an MSI capability with up to 32 messages. Its methods are called with the bus's lock
// held, but for count.
type msi struct {
	f       *Function
	off     int
	control uint16       // as the device has it
	vectors []pci.Vector // made when the guest wants them; changed with Function.irq.mu held
	open    []bool       // of vectors: Unmask was called last
	on      int          // messages that the device is set up for
}

// msiSize is the size of a capability by what its control register says.
func msiSize(f *Function, off int) int {
	c, n := f.word(off+msiControl), 0x0a
	if c&msi64 != 0 {
		n += 4
	}
	if c&msiMasks != 0 {
		n += 0x0a
	}
	return n
}

// setUpMSI emulates the capability: message, mask and pending bits are all kept here.
func (f *Function) setUpMSI(off int) error {
	c := f.word(off + msiControl)
	if f.dev.irqOf(irqMSI).count == 0 {
		return nil
	}
	m := &msi{f: f, off: off, control: c}
	f.msi = m
	n := msiSize(f, off)
	f.cfg.Fixed(off+2, make([]byte, n-2)...)
	fixed := c & (msiCapable | msi64 | msiMasks)
	f.cfg.Fixed(off+msiControl, byte(fixed), byte(fixed>>8))
	f.cfg.Masked(off+msiControl, msiEnable|msiMultiple, 0)
	f.cfg.Masked(off+msiAddress, 0xfc, 0xff, 0xff, 0xff)
	if c&msi64 != 0 {
		f.cfg.Masked(off+msiAddress+4, 0xff, 0xff, 0xff, 0xff)
	}
	f.cfg.Masked(m.data(), 0xff, 0xff)
	if c&msiMasks != 0 {
		f.cfg.Masked(m.data()+4, 0xff, 0xff, 0xff, 0xff)
		f.cfg.Hook(m.data()+8, 4, nil, m.showPending)
	}
	f.cfg.Hook(off+msiControl, n-msiControl, f.irq.fall, nil)
	return nil
}

// data is where the message's data is; mask and pending bits follow, at a distance of 4.
func (m *msi) data() int {
	if m.control&msi64 != 0 {
		return m.off + 0x0c
	}
	return m.off + 0x08
}

func (m *msi) dword(off int) uint32 {
	var b [4]byte
	m.f.cfg.Bytes(off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// wanted is how many messages the guest has turned on.
func (m *msi) wanted() int {
	c := m.f.now(m.off + msiControl)
	if c&msiEnable == 0 {
		return 0
	}
	// More than the device has is undefined (section 7.7.1.2): it gets what there is.
	want, have := c&msiMultiple>>4, m.control&msiCapable>>1
	return min(1<<min(want, have), maxMSI, m.f.dev.irqOf(irqMSI).count)
}

// update brings device and vectors in line with the registers.
func (m *msi) update() {
	q := &m.f.irq
	q.mu.Lock()
	defer q.mu.Unlock()
	n := m.wanted()
	if q.mode == modeMSIX {
		n = 0 // which goes first where a guest has both on
	}
	if q.mode == modeMSI && n != m.on {
		q.disable()
	}
	if err := m.messages(n); err != nil {
		m.f.report(err)
		n = 0
	}
	if n == 0 {
		if q.mode == modeMSI {
			q.disable()
		}
		m.on = 0
		m.f.report(m.messages(0))
		return
	}
	if q.mode == modeMSI {
		return
	}
	q.disable()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(m.vectors[i].EventFD().Fd())
	}
	if m.f.with(func() error { return m.f.dev.setIRQs(irqMSI, 0, fds...) }) {
		q.mode, m.on = modeMSI, n
	}
}

// messages gives the first n vectors their messages, and shuts the others.
func (m *msi) messages(n int) error {
	for len(m.vectors) < n {
		v, err := m.f.c.Router.NewVector()
		if err != nil {
			return err
		}
		m.vectors, m.open = append(m.vectors, v), append(m.open, false)
	}
	address := uint64(m.dword(m.off + msiAddress))
	if m.control&msi64 != 0 {
		address |= uint64(m.dword(m.off+msiAddress+4)) << 32
	}
	// The device puts the number of the message into the low bits of the data.
	data, mask := m.dword(m.data())&0xffff, uint32(0)
	if m.control&msiMasks != 0 {
		mask = m.dword(m.data() + 4)
	}
	var errs []error
	for i, v := range m.vectors {
		open := i < n && mask>>i&1 == 0
		var err error
		switch {
		case open:
			if err = v.Set(address, data&^uint32(max(n, 1)-1)|uint32(i)); err == nil && !m.open[i] {
				err = v.Unmask()
			}
			if err != nil {
				err, open = errors.Join(err, v.Mask()), false
			}
		case m.open[i]:
			err = v.Mask()
		}
		m.open[i] = open
		errs = append(errs, err)
	}
	if address == 0 {
		return nil // there is no message yet
	}
	return errors.Join(errs...)
}

// showPending brings the pending bits up to date.
func (m *msi) showPending() {
	var bits uint32
	for i, v := range m.vectors {
		if !m.open[i] && v.Pending() {
			bits |= 1 << i
		}
	}
	m.f.cfg.SetBytes(m.data()+8, binary.LittleEndian.AppendUint32(nil, bits))
}

// count is how many vectors there are.
func (m *msi) count() int {
	m.f.irq.mu.Lock()
	defer m.f.irq.mu.Unlock()
	return len(m.vectors)
}

// Close frees the vectors.
func (m *msi) Close() error {
	var errs []error
	for _, v := range m.vectors {
		errs = append(errs, v.Close())
	}
	return errors.Join(errs...)
}
