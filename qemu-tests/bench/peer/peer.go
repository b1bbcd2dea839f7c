// Package peer makes the machine that Ashlar is compared with: QEMU as Debian
// packages it, with its libraries, as the root of a chroot(2) on an XFS image.
// It needs no root. The result is cached by a hash of the recipe (this file).
package peer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
)

//go:embed peer.go
var recipe []byte

// What is in the image.
const (
	suite = "trixie"
	size  = 512 << 20
)

var packages = []string{"qemu-system-x86", "base-files"}

// Programs in the image.
const (
	Microvm = "/usr/bin/qemu-system-x86_64-microvm"
	Full    = "/usr/bin/qemu-system-x86_64"
)

// MountPoints are empty folders in the image.
var MountPoints = []string{"dev", "proc", "payload", "scratch"}

// keep are the files that QEMU needs to run a Linux guest, as patterns of
// path.Match.
var keep = []string{
	"usr/bin/qemu-system-x86_64", "usr/bin/qemu-system-x86_64-microvm",
	"usr/lib/x86_64-linux-gnu/*.so*", "usr/lib64/*", "lib64/*", "lib", "lib64",
	"usr/lib/x86_64-linux-gnu/qemu/*", "usr/share/seabios/*",
	"usr/share/qemu/bios*", "usr/share/qemu/qboot.rom", "usr/share/qemu/linuxboot*", "usr/share/qemu/pvh.bin",
	"usr/share/qemu/kvmvapic.bin",
}

// Image returns the path of the image, which is made where there is none, below
// the folder cache. say is told what takes long.
func Image(cache string, say func(string)) (string, error) {
	sum := sha256.Sum256(recipe)
	dir := filepath.Join(cache, "bench", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	image := filepath.Join(dir, "peer.img")
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := build(tmp, filepath.Join(tmp, "peer.img"), say); err != nil {
		return "", err
	}
	return image, os.Rename(filepath.Join(tmp, "peer.img"), image)
}

// lock keeps others from building at the same time.
func lock(name string) (func(), error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

func build(dir, image string, say func(string)) error {
	say(fmt.Sprintf("mmdebstrap %s: %s", suite, strings.Join(packages, " ")))
	root := filepath.Join(dir, "root.tar")
	if err := debstrap(dir, root, say); err != nil {
		return err
	}
	tree, err := unpack(root, filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	say(fmt.Sprintf("making a file system of %d files of it", len(tree)))
	return xfsimage.Make(image, size, filepath.Join(dir, "root"), tree)
}

// debstrap extracts the packages and what they depend on into a tar archive;
// nothing is configured, no script of theirs runs.
func debstrap(dir, to string, say func(string)) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	c := exec.Command("mmdebstrap", "--variant=extract", "--include="+strings.Join(packages, ","),
		`--aptopt=Acquire::Languages "none"`, suite, to)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	start := time.Now()
	if err := c.Start(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: make setup installs it", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("mmdebstrap: %w\n%s", err, log.Bytes())
			}
			return nil
		case <-t.C:
			say(fmt.Sprintf("mmdebstrap is at work (%.0f s)", time.Since(start).Seconds()))
		}
	}
}

// unpack puts what is to be kept of an archive into dir, and says what the file
// system is to have.
func unpack(archive, dir string) (xfsimage.Tree, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tree := xfsimage.Tree{}
	for _, m := range MountPoints {
		tree[m] = xfsimage.Node{}
	}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", archive, err)
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if !kept(name) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			tree[name] = xfsimage.Node{Link: h.Linkname}
		case tar.TypeReg:
			if err := save(filepath.Join(dir, name), r); err != nil {
				return nil, err
			}
			tree[name] = xfsimage.Node{File: name, Mode: uint32(h.Mode) & 0o777}
		}
	}
	for _, p := range []string{Microvm, Full} {
		if tree[strings.TrimPrefix(p, "/")].File == "" {
			return nil, fmt.Errorf("there is no %s in Debian's packages %v of %s", p, packages, suite)
		}
	}
	return tree, nil
}

func kept(name string) bool {
	for _, p := range keep {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}

func save(name string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return f.Close()
}
