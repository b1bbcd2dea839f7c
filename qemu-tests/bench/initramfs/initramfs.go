// Package initramfs makes the two initramfs that the benchmark's guests have: one
// whose init says that it runs, and nothing else, so that a start is the kernel's
// and the VMM's work alone; and one whose init puts load on disk and network.
package initramfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"
)

// Started is the line that an init prints first.
const Started = "BENCH init"

// Place of the program in memory (ELF-64, System V ABI).
const (
	loadAddress = 0x400000
	headers     = 64 + 56 // of the file and of one segment
)

// Tiny writes an archive whose init prints Started and sleeps for ever.
func Tiny(name string) error { return pack(name, program(Started+"\n")) }

// program is a static x86-64 executable that writes text and then pauses.
func program(text string) []byte {
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1 (standard output)
		0xbe, 0, 0, 0, 0, // mov esi, text
		0xba, 0, 0, 0, 0, // mov edx, len(text)
		0x0f, 0x05, // syscall
		0xb8, 34, 0, 0, 0, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to mov eax, 34
	}
	le := binary.LittleEndian
	entry := uint32(loadAddress + headers)
	le.PutUint32(code[11:], entry+uint32(len(code)))
	le.PutUint32(code[16:], uint32(len(text)))
	size := uint64(headers + len(code) + len(text))

	b := []byte("\x7fELF\x02\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	b = le.AppendUint16(b, 2)  // executable
	b = le.AppendUint16(b, 62) // x86-64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, uint64(entry))
	b = le.AppendUint64(b, 64) // the segment's header
	b = le.AppendUint64(b, 0)  // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // loaded
	b = le.AppendUint32(b, 5) // to read and execute
	for _, v := range []uint64{0, loadAddress, loadAddress, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(append(b, code...), text...)
}

// Load writes an archive whose init is the Go program in folder source.
func Load(name, source string) error {
	bin := name + ".init"
	if err := Build(source, bin); err != nil {
		return err
	}
	defer os.Remove(bin)
	b, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	return pack(name, b)
}

// Build builds the static Go program in folder source.
func Build(source, to string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, ".")
	c.Dir = source
	var err error
	if c.Args[5], err = filepath.Abs(to); err != nil {
		return err
	}
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	return nil
}

func pack(name string, init []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("init", string(init), 0o755),
	}
	if err := cpio.WriteRecords(w, records); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
