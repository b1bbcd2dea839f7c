package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	_ "embed" // the recipe, by which the cache knows what it has
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/qemu-tests/cache"
)

//go:embed fetch.go
var recipe []byte

const (
	suite = "bookworm"
	// maxFile bounds a file that is taken, in bytes.
	maxFile = 16 << 20
	// Where files lie in the cache.
	intelFiles = "intel-microcode/*-*-*"
	amdFiles   = "amd64-microcode/microcode_amd*.bin"
)

var packages = []string{"intel-microcode", "amd64-microcode"}

// wanted are the files that are taken, as patterns of path.Match, and in which folder they
// are put under which name: that of the file where it is empty. Newer releases have firmware in usr.
var wanted = []struct{ pattern, folder, name string }{
	{"lib/firmware/intel-ucode/??-??-??*", "intel-microcode", ""},
	{"lib/firmware/amd-ucode/microcode_amd*.bin", "amd64-microcode", ""},
	{"share/doc/intel-microcode/copyright", "intel-microcode", ""},
	{"share/doc/amd64-microcode/copyright", "amd64-microcode", ""},
	// Debian's own list of changes: with that name where there is another one of the maker's.
	{"share/doc/intel-microcode/changelog.Debian.gz", "intel-microcode", "changelog.gz"},
	{"share/doc/amd64-microcode/changelog.gz", "amd64-microcode", ""},
	{"share/doc/amd64-microcode/changelog.Debian.gz", "amd64-microcode", "changelog.gz"},
}

// fetched is the folder of the cache that has what is taken of the packages.
func fetched() (string, error) { return cache.Get("microcode", recipe, fetch) }

func fetch(dir string) error {
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(tmp, "packages.tar")
	fmt.Printf("microcode: mmdebstrap %s: %s\n", suite, strings.Join(packages, " "))
	err = cache.Run("microcode", exec.Command("mmdebstrap", "--variant=extract", "--components=main,contrib,non-free-firmware",
		"--include="+strings.Join(packages, ","), `--aptopt=Acquire::Languages "none"`, suite, archive))
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: make setup installs it", err)
	}
	if err != nil {
		return fmt.Errorf("fetch Debian's packages of microcode: %w", err)
	}
	if err := extract(archive, dir); err != nil {
		return err
	}
	for _, p := range packages {
		if err := writeVersion(filepath.Join(dir, p), p); err != nil {
			return err
		}
	}
	return nil
}

// extract takes what is wanted out of an archive.
func extract(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", archive, err)
		}
		to, ok := place(strings.TrimPrefix(h.Name, "./"))
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > maxFile {
			return fmt.Errorf("%s has %d bytes, want %d at most", h.Name, h.Size, maxFile)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", archive, err)
		}
		if err := os.MkdirAll(filepath.Join(dir, path.Dir(to)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
			return err
		}
	}
}

// place is where a file of a package goes.
func place(name string) (to string, ok bool) {
	n := slices.IndexFunc(wanted, func(w struct{ pattern, folder, name string }) bool {
		ok, err := path.Match(w.pattern, strings.TrimPrefix(name, "usr/"))
		return ok && err == nil
	})
	if n < 0 {
		return "", false
	}
	to = wanted[n].name
	if to == "" {
		to = path.Base(name)
	}
	return path.Join(wanted[n].folder, to), true
}

// firstLine is how a list of changes begins: the package and its version.
var firstLine = regexp.MustCompile(`^([a-z0-9-]+) \(([0-9A-Za-z.+~:-]{1,60})\) `)

// writeVersion puts down the version of the package in dir.
func writeVersion(dir, pkg string) error {
	f, err := os.Open(filepath.Join(dir, "changelog.gz"))
	if err != nil {
		return fmt.Errorf("find the version of %s: %w", pkg, err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("find the version of %s: %w", pkg, err)
	}
	line, err := bufio.NewReader(io.LimitReader(z, 4096)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("find the version of %s: %w", pkg, err)
	}
	m := firstLine.FindStringSubmatch(line)
	if m == nil || m[1] != pkg {
		return fmt.Errorf("find the version of %s: its changelog begins with %.80q", pkg, line)
	}
	return os.WriteFile(filepath.Join(dir, "version"), []byte(m[2]), 0o644)
}
