package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/image-build/microcode"
	"github.com/ashlar-hv/ashlar/image-build/microcode/microcodetest"
)

func TestPlace(t *testing.T) {
	for name, want := range map[string]string{
		"lib/firmware/intel-ucode/06-8f-08":               "intel-microcode/06-8f-08",
		"usr/lib/firmware/intel-ucode/06-4f-01.initramfs": "intel-microcode/06-4f-01.initramfs",
		"lib/firmware/amd-ucode/microcode_amd_fam19h.bin": "amd64-microcode/microcode_amd_fam19h.bin",
		"usr/share/doc/intel-microcode/copyright":         "intel-microcode/copyright",
		"usr/share/doc/amd64-microcode/changelog.gz":      "amd64-microcode/changelog.gz",
		"usr/share/doc/intel-microcode/changelog.gz":      "",
		"lib/firmware/amd/amd_sev_fam19h_model0xh.sbin":   "",
		"lib/firmware/intel-ucode/../06-8f-08":            "",
		"usr/sbin/iucode_tool":                            "",
	} {
		if got, ok := place(name); got != want || ok != (want != "") {
			t.Errorf("place(%q) = %q, %v, want %q", name, got, ok, want)
		}
	}
}

func gz(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What packages have becomes a set of which an archive can be made.
func TestExtract(t *testing.T) {
	wanted := microcodetest.Intel(2, microcodetest.ID{CPUID: 0x806f8, Platforms: 0x87})
	files := map[string][]byte{
		"./lib/firmware/intel-ucode/06-8f-07":               wanted,
		"./lib/firmware/intel-ucode/06-8f-08":               append(bytes.Clone(wanted), microcodetest.Intel(9, microcodetest.ID{CPUID: 0x6f2, Platforms: 1})...),
		"./lib/firmware/amd-ucode/microcode_amd_fam17h.bin": microcodetest.AMD(0x800126f, 0x8012, 0x800f12),
		"./usr/share/doc/intel-microcode/copyright":         []byte("Intel's terms"),
		"./usr/share/doc/amd64-microcode/copyright":         []byte("AMD's terms"),
		"./usr/share/doc/intel-microcode/changelog.gz":      gz(t, "upstream\n"),
		"./usr/share/doc/intel-microcode/changelog.Debian.gz": gz(t,
			"intel-microcode (3.20251111.1~deb12u1) bookworm; urgency=medium\n\n  * New\n"),
		"./usr/share/doc/amd64-microcode/changelog.gz": gz(t, "amd64-microcode (3.2) unstable; urgency=high\n"),
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "packages.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := extract(archive, dir); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if err := writeVersion(filepath.Join(dir, p), p); err != nil {
			t.Fatal(err)
		}
	}
	s, err := set(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Intel, wanted) || string(s.Licences["licence-amd64-microcode"]) != "AMD's terms" ||
		strings.Join(s.Sources, ", ") != "intel-microcode 3.20251111.1~deb12u1, amd64-microcode 3.2" {
		t.Errorf("%+v", s)
	}
	early, err := s.Archive()
	if err != nil {
		t.Fatal(err)
	}
	if _, size, err := microcode.Read(early); err != nil || size != len(early) {
		t.Errorf("%d of %d bytes, %v", size, len(early), err)
	}
	// What is damaged in the cache, or missing, is noticed.
	if err := os.Truncate(filepath.Join(dir, "intel-microcode/06-8f-07"), 4000); err != nil {
		t.Fatal(err)
	}
	if _, err := set(dir); err == nil {
		t.Error("no error for a file that is cut off")
	}
	if err := writeVersion(filepath.Join(dir, "intel-microcode"), "other"); err == nil || !strings.Contains(err.Error(), "changelog begins with") {
		t.Errorf("the version of another package: %v", err)
	}
}
