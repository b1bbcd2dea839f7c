package cache

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExtract(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "a.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, name := range []string{"./boot/vmlinuz-1", "./boot/a", "./boot/b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(name)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, c := range []struct{ pattern, want string }{
		{"boot/vmlinuz-*", ""}, {"boot/?", "fit"}, {"boot", "has no"}, {"boot/[", "syntax"},
	} {
		dir := t.TempDir()
		err := Extract(archive, dir, map[string]string{c.pattern: "kernel"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("Extract(%q) = %v, want %q", c.pattern, err, c.want)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "kernel")); err == nil && string(b) != "./boot/vmlinuz-1" {
			t.Errorf("Extract(%q) gave %q", c.pattern, b)
		}
	}
}

// What has been built is not built again; what failed is.
func TestGet(t *testing.T) {
	t.Setenv("ASHLAR_CACHE", t.TempDir())
	builds := 0
	build := func(dir string) error {
		if builds++; builds == 1 {
			return os.ErrInvalid
		}
		return os.WriteFile(filepath.Join(dir, "a"), []byte("text"), 0o644)
	}
	if _, err := Get("name", []byte("recipe"), build); err == nil {
		t.Error("Get gives no error though the build failed")
	}
	out := filepath.Join(t.TempDir(), "out")
	for range 2 {
		dir, err := Get("name", []byte("recipe"), build)
		if err != nil {
			t.Fatal(err)
		}
		if err := Link(dir, out, []string{"a"}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(out, "a")); string(b) != "text" || builds != 2 {
		t.Errorf("the linked file holds %q (%v) after %d builds, want text and 2", b, err, builds)
	}
}
