package recipe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ashlar-hv/ashlar/kernel/kconfig"
)

// TestAsked reads the fragments of this tree: they parse, nothing stands twice, no kernel has modules.
func TestAsked(t *testing.T) {
	for _, p := range []Profile{Host, Guest} {
		t.Run(p.Name, func(t *testing.T) {
			options, err := p.Asked()
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range options {
				if o.Name == "MODULES" && o.Value == "n" {
					return
				}
			}
			t.Error("CONFIG_MODULES=n is not asked for")
		})
	}
}

func TestOptionsRefusesDuplicatesAcrossFolders(t *testing.T) {
	line := &fstest.MapFile{Data: []byte("CONFIG_KVM=y # why\n")}
	fragments := fstest.MapFS{"common/a.config": line, "host/b.config": line, "guest/c.config": {}}
	if _, err := Host.Options(fragments); !errors.Is(err, kconfig.ErrTwice) {
		t.Errorf("Host.Options = %v, want ErrTwice", err)
	}
	if options, err := Guest.Options(fragments); err != nil || len(options) != 1 {
		t.Errorf("Guest.Options = %v, %v, want one option", options, err)
	}
}

func TestProfileByName(t *testing.T) {
	if p, err := ProfileByName("guest"); err != nil || p != Guest {
		t.Errorf("ProfileByName(guest) = %v, %v", p, err)
	}
	if _, err := ProfileByName("router"); err == nil {
		t.Error("ProfileByName(router): no error")
	}
}

func TestFindSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "linux.tar")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(SourceEnv, path)
	s, err := FindSource()
	if err != nil || !strings.HasPrefix(s.Digest, "ba7816bf") || s.Name() != "linux.tar" {
		t.Errorf("FindSource = %+v, %v", s, err)
	}
	t.Chdir(filepath.Dir(path))
	t.Setenv(SourceEnv, "linux.tar")
	if s, err := FindSource(); err != nil || !filepath.IsAbs(s.Path) {
		t.Errorf("FindSource(relative) = %+v, %v, want an absolute path", s, err)
	}
	t.Setenv(SourceEnv, path+".gone")
	if _, err := FindSource(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("FindSource = %v, want ErrNotExist", err)
	}
}

func TestCheckSize(t *testing.T) {
	image := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(image, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSize(image, Profile{Limit: 11}); err != nil {
		t.Errorf("checkSize(11 of 11) = %v", err)
	}
	if err := checkSize(image, Profile{Limit: 10}); err == nil {
		t.Error("checkSize(11 of 10): no error")
	}
}
