package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
)

const (
	// MaxVectors is the most entries an MSI-X table has.
	MaxVectors = 2048
	// MSIXEntrySize is one table entry in bytes.
	MSIXEntrySize = 16

	msixFunctionMask = 1 << 14
	msixEnable       = 1 << 15
	msixEntryMask    = 1 // in the entry's Vector Control
)

// An MSIX is a function's MSI-X capability, table and pending bits (section
// 7.7.2). Its methods may be called by several goroutines at once.
type MSIX struct {
	cfg     *Config
	capOff  int
	vectors []Vector    // of a source, nil as long as it was never open; guarded by mu then
	report  func(error) // a vector did not take its message
	router  MSIRouter   // of a source's vectors
	source  MSIXSource  // nil: the function signals the vectors itself

	mu      sync.Mutex
	table   []byte // guarded by mu
	enabled bool   // guarded by mu; as is masked: Message Control
	masked  bool
	open    []bool // guarded by mu: Unmask was called last
}

// NewMSIX adds an MSI-X capability with n vectors to cfg: the table is at
// tableOff in BAR bar and the pending bits at pbaOff, both multiples of 8.
// report is told, once per vector at most, when a vector takes no message.
func NewMSIX(cfg *Config, r MSIRouter, n, bar int, tableOff, pbaOff uint32, report func(error)) (*MSIX, error) {
	if n < 1 || n > MaxVectors || bar < 0 || bar >= ROM || tableOff%8 != 0 || pbaOff%8 != 0 {
		return nil, fmt.Errorf("MSI-X with %d vectors in BAR %d: %w", n, bar, ErrConfigSpace)
	}
	m := &MSIX{cfg: cfg, report: report, table: make([]byte, n*MSIXEntrySize), open: make([]bool, n), vectors: make([]Vector, n)}
	var body, mask [10]byte
	binary.LittleEndian.PutUint16(body[0:], uint16(n-1))
	binary.LittleEndian.PutUint32(body[2:], tableOff|uint32(bar))
	binary.LittleEndian.PutUint32(body[6:], pbaOff|uint32(bar))
	binary.LittleEndian.PutUint16(mask[0:], msixEnable|msixFunctionMask)
	off, err := cfg.AddCapability(CapMSIX, body[:], mask[:])
	if err != nil {
		return nil, err
	}
	m.capOff = off
	m.maskAll()
	for i := range n {
		v, err := r.NewVector()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make MSI-X vector %d: %w", i, err), m.Close())
		}
		m.vectors[i] = v
	}
	cfg.Hook(off+2, 2, m.controlWritten, nil)
	return m, nil
}

// maskAll clears the table and masks all its entries.
func (m *MSIX) maskAll() {
	clear(m.table)
	for i := range m.vectors {
		m.entry(i)[12] = msixEntryMask
	}
}

func (m *MSIX) entry(i int) []byte { return m.table[i*MSIXEntrySize:][:MSIXEntrySize] }

// Len is the number of vectors.
func (m *MSIX) Len() int { return len(m.vectors) }

// Enabled tells whether the guest has turned MSI-X on.
func (m *MSIX) Enabled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enabled
}

// EventFD is the file that raises vector i, nil where there is no such vector.
func (m *MSIX) EventFD(i int) *os.File {
	if i < 0 || i >= len(m.vectors) || m.vectors[i] == nil {
		return nil
	}
	return m.vectors[i].EventFD()
}

// controlWritten follows a write to Message Control.
func (m *MSIX) controlWritten() {
	var b [2]byte
	m.cfg.Bytes(m.capOff+2, b[:])
	c := binary.LittleEndian.Uint16(b[:])
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.enabled
	m.enabled, m.masked = c&msixEnable != 0, c&msixFunctionMask != 0
	if m.source != nil && m.enabled && !was {
		m.source.EnableMSIX(true)
	}
	for i := range m.vectors {
		m.update(i, false)
	}
	if m.source != nil && was && !m.enabled {
		m.source.EnableMSIX(false)
	}
}

// update brings vector i in line with the table. changed tells that its message
// may be another than before. m.mu is held.
func (m *MSIX) update(i int, changed bool) {
	e := m.entry(i)
	open := m.enabled && !m.masked && e[12]&msixEntryMask == 0
	v := m.vectors[i]
	if v == nil {
		if !open {
			return
		}
		if v = m.lateVector(i); v == nil {
			return
		}
	}
	var err error
	switch {
	case open && (changed || !m.open[i]):
		address := binary.LittleEndian.Uint64(e[0:])
		if err = v.Set(address, binary.LittleEndian.Uint32(e[8:])); err == nil && !m.open[i] {
			if err = v.Unmask(); err == nil && m.source != nil {
				err = m.source.OpenMSIX(i, v.EventFD())
			}
		}
		if err != nil {
			// The vector may not go on with an older message: keep it shut.
			err = errors.Join(err, v.Mask())
			open = false
		}
	case !open && m.open[i]:
		err = v.Mask()
	}
	m.open[i] = open
	if err != nil && m.report != nil {
		m.report(fmt.Errorf("MSI-X vector %d: %w", i, err))
	}
}

// Reset forgets all messages and masks all vectors. The function's Config has been reset.
func (m *MSIX) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maskAll()
	for i := range m.vectors {
		m.update(i, true)
	}
}

// ReadTable fills b with what is at off in the table.
func (m *MSIX) ReadTable(off uint64, b []byte) {
	clear(b)
	if off >= uint64(len(m.table)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(b, m.table[off:])
}

// WriteTable takes what the guest wrote at off in the table. Every width is
// taken; the reserved bits of Vector Control stay 0.
func (m *MSIX) WriteTable(off uint64, b []byte) {
	if off >= uint64(len(m.table)) || len(b) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first := int(off) / MSIXEntrySize
	last := min((int(off)+len(b)-1)/MSIXEntrySize, len(m.vectors)-1)
	before := append([]byte(nil), m.table[first*MSIXEntrySize:(last+1)*MSIXEntrySize]...)
	copy(m.table[off:], b)
	for i := first; i <= last; i++ {
		e := m.entry(i)
		binary.LittleEndian.PutUint32(e[12:], uint32(e[12]&msixEntryMask))
		e[0] &^= 3 // messages are dword aligned
		old := before[(i-first)*MSIXEntrySize:]
		m.update(i, string(old[:12]) != string(e[:12]))
	}
}

// ReadPBA fills b with what is at off in the pending bit array.
func (m *MSIX) ReadPBA(off uint64, b []byte) {
	clear(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range b {
		for bit := range 8 {
			n := (off+uint64(i))*8 + uint64(bit)
			if n < uint64(len(m.vectors)) && !m.open[n] && m.vectors[n] != nil && m.vectors[n].Pending() {
				b[i] |= 1 << bit
			}
		}
	}
}

// Close closes all vectors.
func (m *MSIX) Close() error {
	var errs []error
	for _, v := range m.vectors {
		if v != nil {
			errs = append(errs, v.Close())
		}
	}
	return errors.Join(errs...)
}
