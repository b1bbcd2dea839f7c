package efi

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
)

// ErrNotAshlar is what Read returns for a file that is no EFI binary of ours.
var ErrNotAshlar = errors.New("not an EFI binary made by Ashlar")

// Read takes a binary that Build wrote apart. The parts share b's memory.
func Read(b []byte) (*Image, error) {
	if len(b) < peOffset || string(b[:2]) != "MZ" {
		return nil, ErrNotAshlar
	}
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAshlar, err)
	}
	if _, ok := f.OptionalHeader.(*pe.OptionalHeader64); !ok || len(f.Sections) > maxSections {
		return nil, ErrNotAshlar
	}
	i := &Image{}
	parts := map[string]func([]byte){
		".linux":   func(d []byte) { i.Kernel = d },
		".initrd":  func(d []byte) { i.Initramfs = d },
		".cmdline": func(d []byte) { i.CommandLine = string(d) },
		".osrel":   func(d []byte) { i.Release = string(d) },
	}
	for _, s := range f.Sections {
		set := parts[s.Name]
		if set == nil {
			continue
		}
		if s.VirtualSize > s.Size || uint64(s.Offset)+uint64(s.Size) > uint64(len(b)) {
			return nil, fmt.Errorf("read EFI binary: section %s is cut off", s.Name)
		}
		set(b[s.Offset:][:s.VirtualSize])
		delete(parts, s.Name)
	}
	if len(parts) > 0 {
		return nil, ErrNotAshlar
	}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("read EFI binary: %w", err)
	}
	return i, nil
}
