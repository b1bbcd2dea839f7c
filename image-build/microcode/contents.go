package microcode

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// ContentsFile is the list of what an archive has, in the folder Folder.
	ContentsFile = "contents"
	// maxContents bounds that file, in bytes, and maxEntries its entries.
	maxContents = 64 << 10
	maxEntries  = 1000
)

// Folder is where a running host finds ContentsFile and the licences.
const Folder = "/" + folder

// An Entry says that there is an update for a processor.
type Entry struct {
	Vendor    Vendor
	Signature Signature
	Revision  uint32
}

// Contents is what an archive has.
type Contents struct {
	// Sources are names and versions of the packages that it comes from.
	Sources []string
	Entries []Entry
}

// For finds the newest update for a processor of v with that CPUID and, for Intel's, platform
// bit.
func (c Contents) For(v Vendor, cpuid, platform uint32) (revision uint32, ok bool) {
	for _, e := range c.Entries {
		if e.Vendor == v && e.Signature.CPUID == cpuid && (v == AMD || e.Signature.Platforms&platform != 0) {
			revision, ok = max(revision, e.Revision), true
		}
	}
	return revision, ok
}

func (c *Contents) add(list []Update) {
	for _, u := range list {
		for _, s := range u.Signatures {
			c.Entries = append(c.Entries, Entry{u.Vendor, s, u.Revision})
		}
	}
}

// marshal writes a line for each source and entry, the latter in order.
func (c Contents) marshal() []byte {
	var b bytes.Buffer
	for _, s := range c.Sources {
		fmt.Fprintf(&b, "source %s\n", s)
	}
	sorted := slices.Clone(c.Entries)
	slices.SortFunc(sorted, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Vendor, b.Vendor), cmp.Compare(a.Signature.CPUID, b.Signature.CPUID),
			cmp.Compare(a.Signature.Platforms, b.Signature.Platforms), cmp.Compare(a.Revision, b.Revision))
	})
	for _, e := range slices.Compact(sorted) {
		fmt.Fprintf(&b, "%s %08x %08x %08x\n", e.Vendor, e.Signature.CPUID, e.Signature.Platforms, e.Revision)
	}
	return b.Bytes()
}

// ParseContents reads what ContentsFile says.
func ParseContents(b []byte) (Contents, error) {
	if len(b) > maxContents {
		return Contents{}, fmt.Errorf("list of microcode: %d bytes, want %d at most", len(b), maxContents)
	}
	var c Contents
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if s, ok := strings.CutPrefix(line, "source "); ok {
			c.Sources = append(c.Sources, s)
			continue
		}
		var e Entry
		if _, err := fmt.Sscanf(line, "%s %x %x %x", &e.Vendor, &e.Signature.CPUID, &e.Signature.Platforms, &e.Revision); err != nil || e.Vendor != Intel && e.Vendor != AMD {
			return Contents{}, fmt.Errorf("list of microcode: %.60q is no line of it", line)
		}
		c.Entries = append(c.Entries, e)
	}
	if len(c.Entries) == 0 || len(c.Entries) > maxEntries {
		return Contents{}, errors.New("list of microcode: it is empty, or too long")
	}
	return c, nil
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
