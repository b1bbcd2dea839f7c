package main

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/image-build/configure"
	"github.com/ashlar-hv/ashlar/image-build/disk"
	"github.com/ashlar-hv/ashlar/image-build/microcode"
	"github.com/ashlar-hv/ashlar/image-build/microcode/microcodetest"
)

// kernel is the least that passes for a kernel with an EFI stub: headers alone.
func kernel() []byte {
	le := binary.LittleEndian
	b := make([]byte, 4096)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	le.PutUint16(b[0x44:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(b[0x54:], 240)
	le.PutUint16(b[0x58:], 0x20b)
	le.PutUint16(b[0x58+68:], pe.IMAGE_SUBSYSTEM_EFI_APPLICATION)
	le.PutUint32(b[0x58+108:], 16)
	copy(b[0x202:], "HdrS")
	return b
}

// parts writes kernel and initramfs of a test and returns the options that name
// them, and the image's path.
func parts(t *testing.T) (args []string, image string) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"bzImage": kernel(), "initramfs": bytes.Repeat([]byte("i"), 100000)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image = filepath.Join(dir, "ashlar.img")
	return []string{"-kernel", filepath.Join(dir, "bzImage"), "-initramfs", filepath.Join(dir, "initramfs"), "-o", image, "-version", "1.2.3"}, image
}

func mkimage(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("mkimage %q: %v", args, err)
	}
	return out.String()
}

func TestReport(t *testing.T) {
	args, image := parts(t)
	report := mkimage(t, args...)
	if again := mkimage(t, "-describe", image); again != report {
		t.Errorf("-describe says\n%s\nafter building it was\n%s", again, report)
	}
	for _, want := range []string{
		"dd if=" + image + " of=/dev/sdX bs=4M conv=fsync status=progress",
		"sha256", disk.CommandLine() + "\n", "ashlarctl image configure " + image,
	} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

func TestReproducible(t *testing.T) {
	args, image := parts(t)
	mkimage(t, args...)
	first, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // no clock with whole seconds may matter
	mkimage(t, args...)
	second, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two images of the same parts differ")
	}
}

func TestCommandLines(t *testing.T) {
	args, image := parts(t)
	if report := mkimage(t, append(args, "-rescue")...); !strings.Contains(report, disk.CommandLine()+" ashlar.rescue=ttyS1 no_timer_check\n") {
		t.Errorf("-rescue:\n%s", report)
	}
	if report := mkimage(t, append(args, "-cmdline", "console=ttyS0")...); !strings.Contains(report, " console=ttyS0\n") {
		t.Errorf("-cmdline:\n%s", report)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	l, err := disk.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	_, i, err := l.Binary(f)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("ID=ashlar\nNAME=Ashlar\nVERSION_ID=%q\nPRETTY_NAME=%q\n", "1.2.3", "Ashlar 1.2.3"); i.Release != want {
		t.Errorf("release = %q, want %q", i.Release, want)
	}
}

// Microcode is told apart from the initramfs behind it; what is none is refused.
func TestMicrocode(t *testing.T) {
	args, image := parts(t)
	set := microcode.Set{
		Intel:   microcodetest.Intel(1, microcodetest.ID{CPUID: 0x806f8, Platforms: 0x87}),
		AMD:     microcodetest.AMD(0x800126f, 0x8012, 0x800f12),
		Sources: []string{"intel-microcode 3.1", "amd64-microcode 3.2"},
	}
	b, err := set.Archive()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(image), "microcode.cpio")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if report := mkimage(t, args...); !strings.Contains(report, "  microcode     none\n") {
		t.Errorf("without microcode:\n%s", report)
	}
	write(b)
	report := mkimage(t, append(args, "-microcode", file)...)
	for _, want := range []string{fmt.Sprintf("  microcode     %d bytes: intel-microcode 3.1, amd64-microcode 3.2\n", len(b)), "  initramfs     100000 bytes\n"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	damaged := bytes.Clone(b)
	damaged[bytes.Index(b, []byte("GenuineIntel.bin"))+1000]++
	for want, b := range map[string][]byte{"checksum is wrong": damaged, "100 bytes behind": append(bytes.Clone(b), make([]byte, 100)...), "no microcode": []byte("x")} {
		write(b)
		if err := run(t.Context(), append(args, "-microcode", file), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run = %v, want %q in it", err, want)
		}
	}
	if err := run(t.Context(), append(args, "-microcode", file+"x"), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "`make microcode` makes it") {
		t.Errorf("run = %v, want it to say what makes the file", err)
	}
}

func TestConfig(t *testing.T) {
	args, image := parts(t)
	report := mkimage(t, append(args, "-config", "../config/testdata/example.yaml")...)
	if !strings.Contains(report, "configuration   present") {
		t.Errorf("the report does not say that it is configured:\n%s", report)
	}
	if _, err := configure.Read(image); err != nil {
		t.Error(err)
	}
	// The document has the host's private key in it.
	if st, err := os.Stat(image); err != nil || st.Mode() != 0o600 {
		t.Errorf("the image has mode %v, %v, want 0600", st.Mode(), err)
	}
}

// TestRefuses wants a clear error, and nothing in the image's place.
func TestRefuses(t *testing.T) {
	args, image := parts(t)
	dir := filepath.Dir(image)
	bad := filepath.Join(dir, "bad.yaml")
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(bad, []byte("version: 1\nhostnme: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "are needed"},
		{"an argument", append(args, "x"), `"x": there are options only`},
		{"no kernel", append(args, "-kernel", dir+"/none"), "`make kernel` makes it"},
		{"no initramfs", append(args, "-initramfs", dir+"/none"), "`make initramfs` makes it"},
		{"bad kernel", append(args, "-kernel", bad), "kernel: is not a bzImage"},
		{"too large", append(args, "-initramfs", large), "want 32.0 MiB at most"},
		{"bad configuration", append(args, "-config", bad), "line 2, column 1: hostnme: no such field"},
		{"bad version", append(args, "-version", "a\"b"), "want one word"},
		{"describe no image", []string{"-describe", bad}, "not an Ashlar image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), tt.args, &strings.Builder{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("run = %v, want %q in it", err, tt.want)
			}
			left, err := filepath.Glob(filepath.Join(dir, "*mkimage*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := os.Stat(image); err == nil {
				t.Error("there is an image")
			}
		})
	}
}
