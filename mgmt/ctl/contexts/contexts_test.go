package contexts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultDir(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want Dir
	}{
		{map[string]string{"ASHLAR_CONFIG_DIR": "/a", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/a"},
		{map[string]string{"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/ashlar"},
		{map[string]string{"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/ashlar"},
		{map[string]string{"HOME": "/h"}, "/h/.config/ashlar"},
		{nil, ""},
	} {
		got, err := DefaultDir(func(k string) string { return c.env[k] })
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("DefaultDir(%v) = %q, %v, want %q", c.env, got, err, c.want)
		}
	}
}

func TestUpdateAndLookup(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "new"))
	if f, err := d.Load(); err != nil || len(f.Contexts) != 0 {
		t.Fatalf("Load() of nothing = %v, %v", f, err)
	}
	one, two := Context{Name: "one", Address: "a:1"}, Context{Name: "two", Address: "b:2", ServerName: "b"}
	err := d.Update(func(f *File) error {
		f.Put(two)
		f.Put(Context{Name: "one"})
		f.Put(one)
		f.Current = "two"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&File{Current: "two", Contexts: []Context{one, two}}, f); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
	if c, err := f.Lookup(""); err != nil || c.Name != "two" {
		t.Errorf("Lookup of the current one = %v, %v", c, err)
	}
	if _, err := f.Lookup("three"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lookup(three) = %v, want ErrNotFound", err)
	}
	if err := f.Delete("two"); err != nil || f.Current != "" {
		t.Errorf("Delete(two) = %v, current %q", err, f.Current)
	}
	if _, err := f.Lookup(""); !errors.Is(err, ErrNoCurrent) {
		t.Errorf("Lookup with none in use = %v, want ErrNoCurrent", err)
	}
	if err := f.Delete("two"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete(two) again = %v, want ErrNotFound", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "new"))
	if err := d.Update(func(*File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{string(d): 0o700 | os.ModeDir, d.Path(FileName): 0o600, d.Path(lockName): 0o600} {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Update(func(f *File) error { f.Put(Context{Name: "one"}); return nil }); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := d.Update(func(f *File) error { f.Put(Context{Name: "two"}); return stop }); !errors.Is(err, stop) {
		t.Fatalf("Update() = %v, want the error of the change", err)
	}
	if f, err := d.Load(); err != nil || len(f.Contexts) != 1 {
		t.Errorf("Load() = %v, %v, want one context", f, err)
	}
	left, err := filepath.Glob(d.Path(".config*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUpdatesAtOnce(t *testing.T) {
	d := Dir(t.TempDir())
	var wg sync.WaitGroup
	const n = 20
	for i := range n {
		wg.Go(func() {
			if err := d.Update(func(f *File) error { f.Put(Context{Name: fmt.Sprint("c", i)}); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if f, err := d.Load(); err != nil || len(f.Contexts) != n {
		t.Errorf("%d contexts, %v, want %d", len(f.Contexts), err, n)
	}
}

func TestMaterial(t *testing.T) {
	d := Dir(t.TempDir())
	abs := filepath.Join(t.TempDir(), "key.pem")
	for name, text := range map[string]string{d.Path("ca.pem"): "the CA", abs: "the key"} {
		if err := WriteFile(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	const inline = "-----BEGIN CERTIFICATE-----\n"
	got, err := d.Material(&Context{Name: "x", CA: "ca.pem", Certificate: inline, Key: abs})
	want := Material{CA: []byte("the CA"), Certificate: []byte(inline), Key: []byte("the key")}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Material() = %v (-want +got):\n%s", err, diff)
	}
	for _, c := range []Context{{Name: "x", CA: "nosuch", Certificate: inline, Key: abs}, {Name: "x", CA: "ca.pem", Certificate: inline}} {
		if _, err := d.Material(&c); err == nil || !strings.Contains(err.Error(), "context x: read") {
			t.Errorf("Material(%+v) = %v", c, err)
		}
	}
	big := d.Path("big")
	if err := os.Truncate(d.Path("ca.pem"), maxFile+1); err != nil {
		t.Fatal(err, big)
	}
	if _, err := d.Material(&Context{Name: "x", CA: "ca.pem", Certificate: inline, Key: abs}); err == nil {
		t.Error("Material() reads a file of any size")
	}
}

func TestParseErrors(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field": "contexts:\n  - name: a\n    addr: b\n",
		"twice":         "contexts:\n  - name: a\n  - name: a\n",
		"no name":       "contexts:\n  - address: b\n",
		"path as name":  "contexts:\n  - name: ../a\n",
		"no YAML":       "contexts: [",
	} {
		if f, err := Parse([]byte(text)); err == nil || f != nil {
			t.Errorf("%s: Parse() = %v, %v, want an error", name, f, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("current: a\ncontexts:\n  - name: a\n    address: h:1\n    ca: a/ca.pem\n    certificate: a/b\n    key: a/c\n"))
	f.Add([]byte("contexts: {}"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			if file != nil {
				t.Error("a result with an error")
			}
			return
		}
		for _, c := range file.Contexts {
			if got, err := file.Lookup(c.Name); err != nil || got.Name != c.Name {
				t.Errorf("Lookup(%q) = %v, %v", c.Name, got, err)
			}
		}
	})
}
