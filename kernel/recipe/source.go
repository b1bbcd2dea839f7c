package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// debianSource is where Debian's package linux-source-6.12 puts the sources.
const debianSource = "/usr/src/linux-source-6.12.tar.xz"

// SourceEnv names a tarball of kernel sources to use in place of Debian's.
const SourceEnv = "KERNEL_SRC"

// ErrNoSource says that there are no kernel sources on this machine.
var ErrNoSource = errors.New("linux-source-6.12 not found: install it with apt or set " + SourceEnv + " to a tarball of Linux 6.12")

// Source is a tarball of kernel sources.
type Source struct {
	Path   string
	Digest string // SHA-256 of the tarball, in hex
}

// FindSource takes the tarball named by KERNEL_SRC, else that of the Debian package, and reads it for its digest.
func FindSource() (Source, error) {
	path := os.Getenv(SourceEnv)
	if path == "" {
		path = debianSource
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return Source{}, ErrNoSource
		}
	}
	path, err := filepath.Abs(path) // tools run elsewhere
	if err != nil {
		return Source{}, fmt.Errorf("kernel sources: %w", err)
	}
	digest, err := digestFile(path)
	if err != nil {
		return Source{}, fmt.Errorf("kernel sources: %w", err)
	}
	return Source{Path: path, Digest: digest}, nil
}

// Name is the tarball's file name.
func (s Source) Name() string { return filepath.Base(s.Path) }

func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
