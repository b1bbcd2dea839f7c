// Package efi makes the one EFI binary of an Ashlar image: a PE32+ application
// that holds kernel, initramfs and command line, and a small stub that starts
// the one with the others.
//
// It follows the Microsoft PE/COFF specification and, for the names of the
// sections, the Unified Kernel Image specification (.osrel, .cmdline, .linux,
// .initrd). Code is executable and not writable, everything else neither; the
// file says so (NX_COMPAT). There is no time in it: the same parts make the
// same bytes.
//
// Under Secure Boot the firmware checks the inner kernel too when the stub hands
// it over: sign the kernel first, then the binary made of it.
package efi

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

const (
	sectionAlignment = 4096
	fileAlignment    = 512
	headerSize       = 1024 // rounded up to fileAlignment
	sectionHeader    = 40
	peOffset         = 64
	optionalSize     = 240
	maxSections      = 8
	// MaxCommandLine is the longest command line in bytes: COMMAND_LINE_SIZE
	// of the kernel without the final zero.
	MaxCommandLine = 2047
	// MaxImage is the largest binary in bytes, far above what an image may be.
	MaxImage = 1 << 30
)

// Section characteristics.
const (
	executable = pe.IMAGE_SCN_CNT_CODE | pe.IMAGE_SCN_MEM_EXECUTE | pe.IMAGE_SCN_MEM_READ
	readable   = pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ
	discarded  = readable | pe.IMAGE_SCN_MEM_DISCARDABLE
)

// Image is what an EFI binary is made of.
type Image struct {
	// Kernel is a bzImage with the EFI stub (CONFIG_EFI_STUB).
	Kernel []byte
	// Initramfs is a cpio archive, compressed in a way that the kernel can read.
	Initramfs []byte
	// CommandLine is the kernel's: printable ASCII, up to MaxCommandLine bytes.
	CommandLine string
	// Release is text in the form of os-release(5).
	Release string
}

type section struct {
	name  string
	data  []byte
	flags uint32
}

// Build writes the binary with stub, made by CompileStub, as its code.
func (i Image) Build(stub []byte) ([]byte, error) {
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("build EFI binary: %w", err)
	}
	if len(stub) == 0 || len(stub) > 1<<20 {
		return nil, fmt.Errorf("build EFI binary: a stub of %d bytes makes no sense", len(stub))
	}
	b := write([]section{
		{".text", stub, executable},
		{".reloc", noRelocations(), discarded},
		{".osrel", []byte(i.Release), readable},
		{".cmdline", []byte(i.CommandLine), readable},
		{".initrd", i.Initramfs, readable},
		{".linux", i.Kernel, readable},
	})
	return b, nil
}

func (i Image) check() error {
	if err := checkKernel(i.Kernel); err != nil {
		return err
	}
	switch {
	case len(i.Initramfs) == 0:
		return errors.New("initramfs: is empty")
	case len(i.Release) == 0:
		return errors.New("release: is empty")
	case len(i.CommandLine) == 0 || len(i.CommandLine) > MaxCommandLine:
		return fmt.Errorf("command line: is %d bytes long, want 1 to %d", len(i.CommandLine), MaxCommandLine)
	case strings.ContainsFunc(i.CommandLine, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Errorf("command line: %q has characters other than printable ASCII", i.CommandLine)
	case len(i.Kernel)+len(i.Initramfs)+len(i.Release) > MaxImage:
		return fmt.Errorf("kernel and initramfs have %d bytes, want %d at most", len(i.Kernel)+len(i.Initramfs), MaxImage)
	}
	return nil
}

// checkKernel wants a PE file that firmware can load on x86-64.
func checkKernel(b []byte) error {
	if len(b) < 0x206 || !bytes.Equal(b[0x202:0x206], []byte("HdrS")) {
		return errors.New("kernel: is not a bzImage")
	}
	if string(b[:2]) != "MZ" {
		return errors.New("kernel: has no EFI stub (CONFIG_EFI_STUB)")
	}
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("kernel: has no EFI stub (CONFIG_EFI_STUB): %w", err)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || h.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		return errors.New("kernel: is not an EFI application for x86-64")
	}
	for _, s := range f.Sections {
		if uint64(s.Offset)+uint64(s.Size) > uint64(len(b)) {
			return fmt.Errorf("kernel: is cut off: section %s ends at byte %d, the file at %d", s.Name, uint64(s.Offset)+uint64(s.Size), len(b))
		}
	}
	return nil
}

// noRelocations is a relocation table that moves nothing. A file without one
// could not be loaded but at address 0.
func noRelocations() []byte {
	b := make([]byte, 12)
	binary.LittleEndian.PutUint32(b[4:], 12) // the block's size; two entries of type ABSOLUTE follow
	return b
}

func align(n, to int) int { return (n + to - 1) / to * to }

// write lays the sections out one after the other, in file and memory.
func write(sections []section) []byte {
	le := binary.LittleEndian
	b := make([]byte, headerSize)
	address := align(headerSize, sectionAlignment)
	var initialized, entry, reloc, relocSize int
	for n, s := range sections {
		h := b[peOffset+24+optionalSize+n*sectionHeader:]
		copy(h[:8], s.name)
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[12:], uint32(address))
		le.PutUint32(h[16:], uint32(align(len(s.data), fileAlignment)))
		le.PutUint32(h[20:], uint32(len(b)))
		le.PutUint32(h[36:], s.flags)
		switch s.name {
		case ".text":
			entry = address
		case ".reloc":
			reloc, relocSize = address, len(s.data)
			fallthrough
		default:
			initialized += align(len(s.data), fileAlignment)
		}
		b = append(b, s.data...)
		b = append(b, make([]byte, align(len(b), fileAlignment)-len(b))...)
		address += align(len(s.data), sectionAlignment)
	}
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], peOffset)
	writeFileHeader(b[peOffset:], len(sections))
	o := b[peOffset+24:]
	le.PutUint32(o[4:], uint32(align(len(sections[0].data), fileAlignment))) // SizeOfCode
	le.PutUint32(o[8:], uint32(initialized))                                 // SizeOfInitializedData
	le.PutUint32(o[16:], uint32(entry))                                      // AddressOfEntryPoint
	le.PutUint32(o[20:], uint32(entry))                                      // BaseOfCode
	le.PutUint32(o[56:], uint32(address))                                    // SizeOfImage
	le.PutUint32(o[112+5*8:], uint32(reloc))                                 // base relocation table
	le.PutUint32(o[112+5*8+4:], uint32(relocSize))
	return b
}

// writeFileHeader writes what does not depend on the sections' contents.
func writeFileHeader(h []byte, sections int) {
	le := binary.LittleEndian
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(h[6:], uint16(sections))
	le.PutUint16(h[20:], optionalSize)
	le.PutUint16(h[22:], pe.IMAGE_FILE_EXECUTABLE_IMAGE|pe.IMAGE_FILE_LARGE_ADDRESS_AWARE|pe.IMAGE_FILE_LINE_NUMS_STRIPPED|pe.IMAGE_FILE_DEBUG_STRIPPED)
	o := h[24:]
	le.PutUint16(o[0:], 0x20b) // PE32+
	le.PutUint32(o[32:], sectionAlignment)
	le.PutUint32(o[36:], fileAlignment)
	le.PutUint32(o[60:], headerSize)
	le.PutUint16(o[68:], pe.IMAGE_SUBSYSTEM_EFI_APPLICATION)
	le.PutUint16(o[70:], pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT)
	le.PutUint32(o[108:], 16) // NumberOfRvaAndSizes
}
