package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/google/go-cmp/cmp"
)

func id(n int) string { return fmt.Sprintf("%032x", n) }

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

// refusedAs reports the code of a refusal, "" for another error.
func refusedAs(err error) hostcall.Code {
	var e *hostcall.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

func create(t *testing.T, s *Store, id, text string) *os.File {
	t.Helper()
	f, err := s.Create(id, int64(len(text)))
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLife(t *testing.T) {
	s := open(t)
	f := create(t, s, id(1), "hello")
	f.Close()
	if _, err := s.OpenSealed(id(1), "guest.kernel"); refusedAs(err) != hostcall.FailedPrecondition {
		t.Errorf("OpenSealed of an unsealed image: %v", err)
	}
	f, sealed, err := s.Open(id(1))
	if err != nil || sealed {
		t.Fatalf("Open = sealed %v, %v", sealed, err)
	}
	if _, err := f.WriteString("HELLO"); err != nil {
		t.Errorf("write to unsealed image: %v", err)
	}
	f.Close()
	for range 2 {
		if err := s.Seal(id(1)); err != nil {
			t.Fatalf("Seal: %v", err)
		}
	}
	f, sealed, err = s.Open(id(1))
	if err != nil || !sealed {
		t.Fatalf("Open = sealed %v, %v", sealed, err)
	}
	if _, err := f.WriteString("x"); err == nil {
		t.Error("wrote to a sealed image")
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "HELLO" {
		t.Errorf("image = %q, %v", b, err)
	}
	f.Close()
	info, err := os.Stat(s.path(id(1)))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("sealed image: %v, %v; want mode 0400", info, err)
	}
	want := []hostcall.ImageStatus{{ID: id(1), Size: 5, Sealed: true}}
	if got, err := s.List(); err != nil || !cmp.Equal(got, want) {
		t.Errorf("List = %v, %v; want %v", got, err, want)
	}
	if err := s.Delete(id(1)); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := s.Delete(id(1)); refusedAs(err) != hostcall.NotFound {
		t.Errorf("second Delete: %v", err)
	}
}

// TestSealWhileOpen seals an image whose writer keeps its descriptor.
func TestSealWhileOpen(t *testing.T) {
	s := open(t)
	f := create(t, s, id(1), "hello")
	defer f.Close()
	if err := s.Seal(id(1)); err != nil {
		t.Fatalf("Seal: %v", err)
	}
	f.WriteAt([]byte("EVIL!"), 0)
	f.Truncate(1)
	got, err := os.ReadFile(s.path(id(1)))
	if err != nil || string(got) != "hello" {
		t.Errorf("sealed image = %q, %v; want what was there when it was sealed", got, err)
	}
	if _, err := os.Stat(s.path(id(1) + tempSuffix)); err == nil {
		t.Error("a temporary file is left behind")
	}
}

// TestSealChecksSize seals images whose writer has changed their size to what
// Create would have refused.
func TestSealChecksSize(t *testing.T) {
	s := open(t)
	for _, size := range []int64{0, MaxSize + 1} {
		f := create(t, s, id(1), "hello")
		if err := f.Truncate(size); err != nil {
			t.Logf("truncate to %d bytes: %v", size, err)
			f.Close()
			break // a file system without files of that size
		}
		for _, open := range []bool{true, false} {
			if !open {
				f.Close()
			}
			if err := s.Seal(id(1)); refusedAs(err) != hostcall.FailedPrecondition {
				t.Errorf("Seal of an image of %d bytes, open %v: %v", size, open, err)
			}
		}
		if _, err := s.OpenSealed(id(1), "f"); refusedAs(err) != hostcall.FailedPrecondition {
			t.Errorf("OpenSealed of an image of %d bytes: %v", size, err)
		}
		if err := s.Delete(id(1)); err != nil {
			t.Error(err)
		}
	}
}

func TestCreateRefused(t *testing.T) {
	s := open(t)
	create(t, s, id(1), "x").Close()
	create(t, s, id(2), "x").Close()
	if err := s.Seal(id(2)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		id   string
		size int64
		want hostcall.Code
	}{
		{id(1), 1, hostcall.AlreadyExists},
		{id(2), 1, hostcall.AlreadyExists},
		{id(3), 0, hostcall.InvalidArgument},
		{id(3), -1, hostcall.InvalidArgument},
		{id(3), MaxSize + 1, hostcall.InvalidArgument},
		{id(3), MaxSize, hostcall.ResourceExhausted},
	}
	for _, tt := range tests {
		if f, err := s.Create(tt.id, tt.size); refusedAs(err) != tt.want {
			t.Errorf("Create(%s, %d) = %v, %v; want %s", tt.id, tt.size, f, err, tt.want)
		}
	}
	if _, err := os.Stat(s.path(id(3) + partSuffix)); err == nil {
		t.Error("a refused image is left behind")
	}
	for name, f := range map[string]func() error{
		"Open":       func() error { _, _, err := s.Open(id(9)); return err },
		"OpenSealed": func() error { _, err := s.OpenSealed(id(9), "f"); return err },
		"Seal":       func() error { return s.Seal(id(9)) },
	} {
		if err := f(); refusedAs(err) != hostcall.NotFound {
			t.Errorf("%s of no image: %v", name, err)
		}
	}
	for _, name := range []string{"", "..", "../" + id(2), id(2) + partSuffix} {
		if _, err := s.OpenSealed(name, "f"); refusedAs(err) != hostcall.InvalidArgument {
			t.Errorf("OpenSealed(%q): %v", name, err)
		}
	}
}

func TestOpenClearsRemains(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{id(1) + tempSuffix, id(2), id(2) + partSuffix, id(3) + partSuffix, "lost+found"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if d := cmp.Diff([]string{id(2), id(3) + partSuffix, "lost+found"}, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

// TestCloneKeepsHoles copies a file with data behind a hole.
func TestCloneKeepsHoles(t *testing.T) {
	const size, at = 64 << 20, 32 << 20
	dir := t.TempDir()
	from, err := os.Create(filepath.Join(dir, "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	data := bytes.Repeat([]byte("ashlar"), 4000)
	if err := from.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := from.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	for name, clone := range map[string]func(to, from *os.File) error{"Clone": Clone, "copyData": copyData} {
		to, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := clone(to, from); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := to.Stat()
		if err != nil || info.Size() != size {
			t.Errorf("%s: size %d, %v; want %d", name, info.Size(), err, size)
		}
		got := make([]byte, len(data))
		if _, err := to.ReadAt(got, at); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: data differ, %v", name, err)
		}
		if n := blocks(t, to); n*512 > 1<<20 {
			t.Errorf("%s: takes %d bytes, want the holes to stay", name, n*512)
		}
	}
}
