package efi

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kernel is the least that looks like a kernel with an EFI stub: a PE file with
// the boot protocol's mark where a bzImage has it.
func kernel() []byte {
	b := write([]section{{".text", bytes.Repeat([]byte{0xf4}, 5000), executable}, {".reloc", noRelocations(), discarded}})
	copy(b[0x202:], "HdrS") // between the section headers and the first section
	return b
}

func testImage() Image {
	return Image{
		Kernel:      kernel(),
		Initramfs:   bytes.Repeat([]byte("initramfs"), 1001),
		CommandLine: `console=ttyS0 words="with blanks"`,
		Release:     "ID=ashlar\n",
	}
}

func stub(t testing.TB) []byte {
	t.Helper()
	b, err := CompileStub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func built(t testing.TB) []byte {
	t.Helper()
	b, err := testImage().Build(stub(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadBack(t *testing.T) {
	got, err := Read(built(t))
	if err != nil {
		t.Fatal(err)
	}
	want := testImage()
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("image changed (-want +got):\n%s", diff)
	}
}

func TestReproducible(t *testing.T) {
	if !bytes.Equal(built(t), built(t)) {
		t.Error("two builds of the same parts differ")
	}
}

func TestStubIsSmall(t *testing.T) {
	if n := len(stub(t)); n > 4096 {
		t.Errorf("the stub has %d bytes, want 4096 at most", n)
	}
}

// TestPE checks what firmware checks before it runs a file.
func TestPE(t *testing.T) {
	b := built(t)
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		t.Fatalf("optional header is a %T, want PE32+", f.OptionalHeader)
	}
	if f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || o.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION || o.SectionAlignment != 4096 {
		t.Errorf("machine %#x, subsystem %d, alignment %d", f.Machine, o.Subsystem, o.SectionAlignment)
	}
	if f.Characteristics&pe.IMAGE_FILE_RELOCS_STRIPPED != 0 {
		t.Error("relocations are stripped: firmware could load the file at one address only")
	}
	if o.DllCharacteristics&pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT == 0 {
		t.Error("the file does not say that it is NX compatible")
	}
	if f.TimeDateStamp != 0 {
		t.Errorf("there is a time in the file: %d", f.TimeDateStamp)
	}
	next := uint32(4096)
	var names []string
	for _, s := range f.Sections {
		names = append(names, s.Name)
		if s.VirtualAddress != next || s.Offset%o.FileAlignment != 0 || s.Size%o.FileAlignment != 0 || int64(s.Offset)+int64(s.Size) > int64(len(b)) {
			t.Errorf("section %s lies at %#x in memory, want %#x; at %#x, %#x bytes, in the file", s.Name, s.VirtualAddress, next, s.Offset, s.Size)
		}
		const w, x = pe.IMAGE_SCN_MEM_WRITE, pe.IMAGE_SCN_MEM_EXECUTE
		if s.Characteristics&w != 0 || (s.Characteristics&x != 0) != (s.Name == ".text") {
			t.Errorf("section %s has the rights %#x", s.Name, s.Characteristics)
		}
		next = (s.VirtualAddress + s.VirtualSize + 4095) / 4096 * 4096
	}
	if o.SizeOfImage != next {
		t.Errorf("SizeOfImage = %#x, want %#x", o.SizeOfImage, next)
	}
	if diff := cmp.Diff([]string{".text", ".reloc", ".osrel", ".cmdline", ".initrd", ".linux"}, names); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	if text := f.Section(".text"); o.AddressOfEntryPoint != text.VirtualAddress {
		t.Errorf("entry at %#x, want %#x", o.AddressOfEntryPoint, text.VirtualAddress)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Image)
		want string
	}{
		{"no kernel", func(i *Image) { i.Kernel = nil }, "kernel: is not a bzImage"},
		{"a text", func(i *Image) { i.Kernel = bytes.Repeat([]byte("text"), 1000) }, "kernel: is not a bzImage"},
		{"kernel without stub", func(i *Image) { clear(i.Kernel[:64]) }, "kernel: has no EFI stub"},
		{"kernel cut off", func(i *Image) { i.Kernel = i.Kernel[:3000] }, "kernel: is cut off"},
		{"32-bit kernel", func(i *Image) { binary.LittleEndian.PutUint16(i.Kernel[peOffset+4:], pe.IMAGE_FILE_MACHINE_ARMNT) }, "not an EFI application for x86-64"},
		{"no initramfs", func(i *Image) { i.Initramfs = nil }, "initramfs: is empty"},
		{"no command line", func(i *Image) { i.CommandLine = "" }, "command line: is 0 bytes"},
		{"long command line", func(i *Image) { i.CommandLine = strings.Repeat("x", MaxCommandLine+1) }, "command line: is 2048 bytes"},
		{"newline", func(i *Image) { i.CommandLine = "a\nb" }, "command line:"},
		{"no release", func(i *Image) { i.Release = "" }, "release: is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := testImage()
			tt.edit(&i)
			_, err := i.Build([]byte{0xc3})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Build = %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := testImage().Build(nil); err == nil {
		t.Error("Build without a stub = nil, want an error")
	}
}

func TestReadRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte(strings.Repeat("text", 1000)), "another PE file": kernel(),
	} {
		if _, err := Read(b); !errors.Is(err, ErrNotAshlar) {
			t.Errorf("%s: Read = %v, want ErrNotAshlar", name, err)
		}
	}
	b := built(t)
	if _, err := Read(b[:len(b)-1000]); err == nil {
		t.Error("cut off: Read = nil, want an error")
	}
}

func TestCompileStubWithoutCompiler(t *testing.T) {
	t.Setenv("CC", "/nonexistent/cc")
	if _, err := CompileStub(t.Context()); err == nil || !strings.Contains(err.Error(), "/nonexistent/cc (package gcc)") {
		t.Errorf("CompileStub = %v, want it to name the compiler and its package", err)
	}
}

func FuzzRead(f *testing.F) {
	i := testImage()
	b, err := i.Build([]byte{0xc3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:2000])
	f.Add(kernel())
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := Read(b)
		if err != nil {
			if i != nil {
				t.Fatal("an image beside an error")
			}
			return
		}
		if _, err := i.Build([]byte{0xc3}); err != nil {
			t.Fatalf("read, but cannot be built: %v", err)
		}
	})
}
