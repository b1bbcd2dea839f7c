package configure

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/disk"
)

func example(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../config/testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func image(t *testing.T) string {
	t.Helper()
	b, err := disk.Build(bytes.Repeat([]byte("EFI"), 1000))
	if err != nil {
		t.Fatal(err)
	}
	return file(t, b)
}

func file(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ashlar.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConfigure(t *testing.T) {
	path := image(t)
	if _, err := Read(path); !errors.Is(err, ErrNotConfigured) {
		t.Errorf("Read of a fresh image = %v, want ErrNotConfigured", err)
	}
	before := load(t, path)
	first := example(t)
	second := append(bytes.Clone(first), "# a comment\n"...)
	for _, doc := range [][]byte{first, second, first} {
		if err := Configure(path, doc); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil || !bytes.Equal(got, doc) {
			t.Fatalf("Read = %d bytes, %v, want the %d written", len(got), err, len(doc))
		}
	}
	after := load(t, path)
	const end = disk.ConfigOffset + disk.ConfigSize
	if len(before) != len(after) || !bytes.Equal(before[:disk.ConfigOffset], after[:disk.ConfigOffset]) || !bytes.Equal(before[end:], after[end:]) {
		t.Error("something outside the configuration partition changed")
	}
}

// TestConfigureHidesKey wants nobody else to read the host's private key, and
// an image that was refused left as it was.
func TestConfigureHidesKey(t *testing.T) {
	path := image(t)
	mode := func() os.FileMode {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode()
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Configure(path, []byte("version: 1\n")); err == nil || mode() != 0o644 {
		t.Errorf("refused with %v, mode %v, want an error and the mode unchanged", err, mode())
	}
	if err := Configure(path, example(t)); err != nil || mode() != 0o600 {
		t.Errorf("Configure = %v, mode %v, want 0600", err, mode())
	}
}

// TestLargerStick writes the image to something larger, as dd does.
func TestLargerStick(t *testing.T) {
	path := image(t)
	if err := os.Truncate(path, 100<<20); err != nil {
		t.Fatal(err)
	}
	if err := Configure(path, example(t)); err != nil {
		t.Error(err)
	}
}

func TestConfigureRefuses(t *testing.T) {
	good := load(t, image(t))
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(good); f(b); return b }
	for _, tt := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty file", nil, "not an Ashlar image"},
		{"zeros", make([]byte, 40<<20), "not an Ashlar image"},
		{"text", bytes.Repeat([]byte("not an image\n"), 100000), "not an Ashlar image"},
		{"cut off in the binary", good[:len(good)-2<<20], "it is cut off"},
		{"cut off in the configuration", good[:3<<20], "it is cut off"},
		{"table damaged", edit(func(b []byte) { b[512+60] ^= 1 }), "header is damaged"},
		{"entries damaged", edit(func(b []byte) { b[1024+60] ^= 1 }), "entries are damaged"},
		{"formatted otherwise", edit(func(b []byte) { clear(b[disk.ConfigOffset : disk.ConfigOffset+512]) }), "configuration partition: open FAT16: not a FAT16"},
		{"renamed", edit(func(b []byte) {
			i := bytes.LastIndex(b[:disk.ConfigOffset+disk.ConfigSize], []byte("ASHLAR-CFG"))
			copy(b[i:], "MY-STICK  ")
		}), `its label is "MY-STICK", want ASHLAR-CFG`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, tt.image)
			err := Configure(path, example(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Configure = %v, want %q and the path in it", err, tt.want)
			}
			if !bytes.Equal(load(t, path), tt.image) {
				t.Error("the refused image was changed")
			}
			if _, err := Read(path); err == nil {
				t.Error("Read = nil, want an error")
			}
		})
	}
	for name, path := range map[string]string{"directory": t.TempDir(), "character device": "/dev/null", "nothing": filepath.Join(t.TempDir(), "none")} {
		if err := Configure(path, example(t)); err == nil {
			t.Errorf("%s: Configure = nil, want an error", name)
		}
	}
}

func TestConfigureRefusesDocument(t *testing.T) {
	path := image(t)
	before := load(t, path)
	err := Configure(path, bytes.Replace(example(t), []byte("port: 8443"), []byte("port: 84430"), 1))
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 1 || !strings.Contains(err.Error(), "line 19, column 9: api.port: is 84430") {
		t.Errorf("Configure = %v, want it to name line 19", err)
	}
	if !bytes.Equal(before, load(t, path)) {
		t.Error("the image was changed")
	}
}

func TestReadTooLarge(t *testing.T) {
	path := image(t)
	f, size, err := open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := disk.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	v, err := l.OpenConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteFile(config.FileName, make([]byte, config.MaxSize+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "want 65536 at most") {
		t.Errorf("Read = %v, want it to name the limit", err)
	}
	if err := Configure(path, example(t)); err != nil {
		t.Errorf("Configure does not replace it: %v", err)
	}
}

func TestConfigureNoRoom(t *testing.T) {
	path := image(t)
	f, size, err := open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := disk.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	v, err := l.OpenConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	for n := disk.ConfigSize; v.WriteFile("FILM.MP4", make([]byte, n)) != nil; n -= 512 {
		// The largest that fits is looked for from above.
	}
	if err := Configure(path, example(t)); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("Configure = %v, want it to say that there is no room", err)
	}
}
