package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Pages are pages of this process's own that KVM can show to a guest.
type Pages struct {
	p hostPointer
	n int
}

// NewPages makes n pages of zeros.
func NewPages(n int) (*Pages, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n)*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("make %d pages: %w", n, err)
	}
	return &Pages{p, n}, nil
}

// Close frees them: KVM knows of them no longer.
func (p *Pages) Close() error {
	if p == nil || p.p == nil {
		return nil
	}
	err := unmap(p.p, uint64(p.n)*PageSize)
	p.p = nil
	return err
}
