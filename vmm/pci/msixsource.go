package pci

import (
	"fmt"
	"os"
)

// An MSIXSource is a device outside this process that signals an MSIX's vectors. Its methods are
// called with the MSIX's lock held.
type MSIXSource interface {
	// EnableMSIX follows the guest's turning MSI-X on or off: before the first vector
	// opens, and after the last has shut.
	EnableMSIX(on bool)
	// OpenMSIX is told each time that vector i opens, to have the device signal fd, which
	// is always the same. What it signals while the vector is shut waits in fd.
	OpenMSIX(i int, fd *os.File) error
}

// NewSourceMSIX makes an MSIX with n vectors for a capability that is at capOff of cfg. A vector
// is made when it opens for the first time.
func NewSourceMSIX(cfg *Config, r MSIRouter, capOff, n int, s MSIXSource, report func(error)) (*MSIX, error) {
	if n < 1 || n > MaxVectors || capOff < firstCap || capOff > headerSpace-msixCapSize {
		return nil, fmt.Errorf("MSI-X with %d vectors at %#x: %w", n, capOff, ErrConfigSpace)
	}
	m := &MSIX{
		cfg: cfg, capOff: capOff, router: r, source: s, report: report,
		table: make([]byte, n*MSIXEntrySize), open: make([]bool, n), vectors: make([]Vector, n),
	}
	m.maskAll()
	const enableAndMask = (msixEnable | msixFunctionMask) >> 8
	cfg.Masked(capOff+2, 0, enableAndMask)
	cfg.Hook(capOff+2, 2, m.controlWritten, nil)
	return m, nil
}

// msixCapSize is the capability in bytes.
const msixCapSize = 12

// lateVector makes vector i; nil where there is none to be had. m.mu is held.
func (m *MSIX) lateVector(i int) Vector {
	v, err := m.router.NewVector()
	if err != nil {
		if m.report != nil {
			m.report(fmt.Errorf("make MSI-X vector %d: %w", i, err))
		}
		return nil
	}
	m.vectors[i] = v
	return v
}

// Vectors is how many vectors there are to signal.
func (m *MSIX) Vectors() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, v := range m.vectors {
		if v != nil {
			n++
		}
	}
	return n
}
