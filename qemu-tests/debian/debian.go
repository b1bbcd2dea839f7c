// Package debian takes programs out of Debian's packages, with the files that they need,
// for machines of the tests. It needs no root. What is made of them is kept in a cache.
package debian

import (
	"archive/tar"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
	"github.com/ashlar-hv/ashlar/qemu-tests/cache"
)

//go:embed debian.go
var recipe []byte

// Files are programs of Debian's.
type Files struct {
	Suite    string   // release, by its name
	Packages []string // to which come those that they depend on
	Keep     []string // what is taken of them: patterns of path.Match, without a leading slash
	Folders  []string // empty ones beside it
}

// Cached returns the path of an image that is called file in the cache of that name, which
// make makes where there is none of the same recipe: the caller's source and this file. It
// gets an empty folder to work in, where it leaves the image.
func Cached(name, file string, source []byte, make func(dir, image string) error) (string, error) {
	dir, err := cache.Get(name, append(bytes.Clone(source), recipe...), func(dir string) error {
		tmp, err := os.MkdirTemp(dir, "build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		if err := make(tmp, filepath.Join(tmp, file)); err != nil {
			return err
		}
		return os.Rename(filepath.Join(tmp, file), filepath.Join(dir, file))
	})
	return filepath.Join(dir, file), err
}

// Unpack puts f into the folder dir/root, and says what is there. say is told what takes
// long.
func (f Files) Unpack(dir string, say func(string)) (root string, _ xfsimage.Tree, _ error) {
	say(fmt.Sprintf("mmdebstrap %s: %s", f.Suite, strings.Join(f.Packages, " ")))
	archive := filepath.Join(dir, "root.tar")
	if err := f.debstrap(dir, archive); err != nil {
		return "", nil, err
	}
	defer os.Remove(archive)
	root = filepath.Join(dir, "root")
	for _, m := range f.Folders {
		if err := os.MkdirAll(filepath.Join(root, m), 0o755); err != nil {
			return "", nil, err
		}
	}
	tree, err := f.unpack(archive, root)
	return root, tree, err
}

// debstrap extracts the packages and what they depend on into a tar archive;
// nothing is configured, no script of theirs runs.
func (f Files) debstrap(dir, to string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	err := cache.Run("debian", exec.Command("mmdebstrap", "--variant=extract", "--include="+strings.Join(f.Packages, ","),
		`--aptopt=Acquire::Languages "none"`, f.Suite, to))
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: make setup installs it", err)
	}
	return err
}

// unpack puts what is to be kept of an archive into dir, and says what that is.
func (f Files) unpack(archive, dir string) (xfsimage.Tree, error) {
	in, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	tree := xfsimage.Tree{}
	for _, m := range f.Folders {
		tree[m] = xfsimage.Node{}
	}
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", archive, err)
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if !f.kept(name) {
			continue
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			if err := os.Symlink(h.Linkname, to); err != nil {
				return nil, err
			}
			tree[name] = xfsimage.Node{Link: h.Linkname}
		case tar.TypeReg:
			mode := h.FileInfo().Mode().Perm()
			if err := save(to, mode, r); err != nil {
				return nil, err
			}
			tree[name] = xfsimage.Node{File: name, Mode: uint32(mode)}
		}
	}
	for _, k := range f.Keep {
		if strings.HasPrefix(k, "usr/bin/") && tree[k].File == "" {
			return nil, fmt.Errorf("there is no /%s in Debian's packages %v of %s", k, f.Packages, f.Suite)
		}
	}
	return tree, nil
}

func (f Files) kept(name string) bool {
	for _, p := range f.Keep {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}

func save(name string, mode os.FileMode, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return f.Close()
}
