package protocol

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Backing says what of the host's a guest's memory is made of.
type Backing struct {
	Pages Pages `json:"pages,omitempty"`
	// Populate: all of the memory is allocated before the guest starts, or it does
	// not start.
	Populate bool `json:"populate,omitempty"`
}

// Pages is the kind of pages that the host makes memory of.
type Pages string

// Kinds of pages.
const (
	// DefaultPages are huge pages as far as the host has some at hand, else pages of 4 KiB;
	// "" stands for them, too.
	DefaultPages Pages = "default"
	// TransparentPages are the same, refused where the host's kernel knows no huge pages.
	TransparentPages Pages = "transparent"
	// SmallPages have 4 KiB each: the guest holds no more of the host's memory than it has
	// touched, and waits longer for it.
	SmallPages Pages = "4KiB"
	// Pages2MiB and Pages1GiB are from the host's pool of just that size, all of them.
	Pages2MiB Pages = "2MiB"
	Pages1GiB Pages = "1GiB"
)

// AllPages are the names of the kinds of pages, the usual one first.
func AllPages() []string {
	return []string{string(DefaultPages), string(TransparentPages), string(SmallPages), string(Pages2MiB), string(Pages1GiB)}
}

// PoolSize is the size in bytes of the pages of a pool, 0 for pages of none.
func (p Pages) PoolSize() uint64 {
	switch p {
	case Pages2MiB:
		return 2 << 20
	case Pages1GiB:
		return 1 << 30
	}
	return 0
}

// Check says what is wrong with b for a guest of that much memory. Without a
// Backing nothing is.
func (b *Backing) Check(memoryBytes uint64) *Error {
	if b == nil || b.Pages == "" {
		return nil
	}
	if !slices.Contains(AllPages(), string(b.Pages)) {
		return &Error{Code: InvalidArgument, Field: "backing.pages",
			Message: fmt.Sprintf("there are no pages %q: choose from %s", b.Pages, strings.Join(AllPages(), ", "))}
	}
	if n := b.Pages.PoolSize(); n > 0 && memoryBytes%n != 0 {
		return &Error{Code: InvalidArgument, Field: "memoryBytes",
			Message: fmt.Sprintf("%d bytes of memory: on pages of %s it is a multiple of %d", memoryBytes, b.Pages, n)}
	}
	return nil
}

// Kind is what pages b asks for; DefaultPages where it asks for none.
func (b *Backing) Kind() Pages {
	if b == nil || b.Pages == "" {
		return DefaultPages
	}
	return b.Pages
}

// Populated says whether b asks for that.
func (b *Backing) Populated() bool { return b != nil && b.Populate }

// populateRate is how many bytes a second are populated at the very least.
const populateRate = 64 << 20

// PopulateTime is how long a VMM may take to populate that much memory; 0 where it is
// not asked to.
func (b *Backing) PopulateTime(memoryBytes uint64) time.Duration {
	if !b.Populated() {
		return 0
	}
	return time.Duration(memoryBytes/populateRate) * time.Second
}
