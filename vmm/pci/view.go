package pci

import "iter"

// A View is a page of the guest's address space in which it reads the configuration space of one
// function by itself: memory that is read-only for it, so that its writes come to the Bus as ever.
type View interface {
	// Page is the memory, which lives as long as the function.
	Page() *[ConfigSize]byte
	// Open has the guest see the page, for good.
	Open() error
}

// Show has the guest read configuration spaces by itself, without an exit, as far as nothing comes of a read: of
// functions on the root bus that are no device of the host's, and have no Hook for reads but HookAhead. at makes
// the View of what is at off in ECAM. Show is for the maker of the machine, when the Bus has all functions of the
// root bus.
func (b *Bus) Show(at func(off uint64) (View, error)) error {
	for off, c := range b.plain() {
		v, err := at(off)
		if err != nil {
			return err
		}
		c.moveTo(v.Page())
		if err := v.Open(); err != nil {
			return err
		}
	}
	return nil
}

// Plain is how many Views Show makes.
func (b *Bus) Plain() (n int) {
	for range b.plain() {
		n++
	}
	return n
}

// plain goes through what can be shown, with its offset in ECAM.
func (b *Bus) plain() iter.Seq2[uint64, *Config] {
	return func(yield func(uint64, *Config) bool) {
		for dev, s := range b.slots {
			if s != nil && s.cfg.plain() && !yield(uint64(dev)*8*ConfigSize, s.cfg) {
				return
			}
		}
		for fn, p := range b.ports {
			if p.s.cfg.plain() && !yield((PortDevice*8+uint64(fn))*ConfigSize, p.s.cfg) {
				return
			}
		}
	}
}

// plain says that nothing comes of reading c.
func (c *Config) plain() bool {
	for _, h := range c.hooks {
		if h.reading != nil && !h.ahead {
			return false
		}
	}
	return c.passed == nil
}

// moveTo has the bytes be in page from now on.
func (c *Config) moveTo(page *[ConfigSize]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*page = *c.data
	c.data, c.shown = page, true
}
