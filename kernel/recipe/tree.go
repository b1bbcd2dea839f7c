package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/kernel/kconfig"
)

// Tree is a folder with unpacked kernel sources, in which the kernel is also built: that way every path the compiler
// sees is relative, and none of this machine ends up in the image.
type Tree struct {
	Dir string
	Log io.Writer // gets what the tools print
}

// unpacked marks a tree that was unpacked to its end.
const unpacked = ".unpacked"

// Unpack fills the tree from the tarball. A tree that was unpacked from it before stays as it is.
func (t Tree) Unpack(ctx context.Context, s Source) error {
	mark := filepath.Join(t.Dir, unpacked)
	if digest, err := os.ReadFile(mark); err == nil && string(digest) == s.Digest {
		return nil
	}
	if err := errors.Join(os.RemoveAll(t.Dir), os.MkdirAll(t.Dir, 0o755)); err != nil {
		return fmt.Errorf("unpack %s: %w", s.Name(), err)
	}
	if err := t.run(ctx, "tar", "--extract", "--strip-components=1", "--no-same-owner", "--file", s.Path); err != nil {
		return fmt.Errorf("unpack %s: %w", s.Name(), err)
	}
	return os.WriteFile(mark, []byte(s.Digest), 0o644)
}

// Configure makes the .config: tinyconfig, then options, then the kernel's own defaults for what they bring into
// reach (new mitigations arrive that way). The error is [kconfig.Mismatches] if the result lacks an option.
func (t Tree) Configure(ctx context.Context, options []kconfig.Option) error {
	if err := t.make(ctx, "tinyconfig"); err != nil {
		return err
	}
	f, err := os.OpenFile(t.path(".config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(kconfig.Format(options))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := t.make(ctx, "olddefconfig"); err != nil {
		return err
	}
	return t.check(options)
}

func (t Tree) check(options []kconfig.Option) error {
	f, err := os.Open(t.path(".config"))
	if err != nil {
		return err
	}
	defer f.Close()
	return kconfig.Check(options, f)
}

// Compile builds the kernel with jobs compilers at a time.
func (t Tree) Compile(ctx context.Context, jobs int) error {
	return t.make(ctx, "-j"+strconv.Itoa(jobs), "bzImage")
}

// Collect puts the artefacts into dir, an existing folder: bzImage, vmlinux where the profile wants it, config, and
// version, which tells what they were made from.
func (t Tree) Collect(ctx context.Context, in Input, dir string) error {
	image := filepath.Join(dir, "bzImage")
	if err := copyFile(t.path("arch/x86/boot/bzImage"), image); err != nil {
		return err
	}
	if err := checkSize(image, in.Profile); err != nil {
		return err
	}
	if in.Profile.ELF {
		if err := t.run(ctx, "strip", "--strip-all", "-o", filepath.Join(dir, "vmlinux"), "vmlinux"); err != nil {
			return fmt.Errorf("strip vmlinux: %w", err)
		}
	}
	if err := copyFile(t.path(".config"), filepath.Join(dir, "config")); err != nil {
		return err
	}
	release, err := os.ReadFile(t.path("include/config/kernel.release"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "version"), in.version(string(release)), 0o644)
}

func (in Input) version(release string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "release: %s\n", strings.TrimSpace(release))
	fmt.Fprintf(&b, "source: %s\n", in.Source.Name())
	fmt.Fprintf(&b, "source-sha256: %s\n", in.Source.Digest)
	for _, v := range strings.Split(string(in.Toolchain), "\n") {
		fmt.Fprintf(&b, "tool: %s\n", v)
	}
	return []byte(b.String())
}

func checkSize(image string, p Profile) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	if info.Size() > p.Limit {
		return fmt.Errorf("the %s kernel has %d bytes, more than its limit of %d: take options out", p.Name, info.Size(), p.Limit)
	}
	return nil
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

func (t Tree) path(name string) string { return filepath.Join(t.Dir, name) }

// notUsed hides from the configuration what one machine has and another has not, and no kernel of ours uses.
var notUsed = []string{"RUSTC=false", "BINDGEN=false", "PAHOLE=false"}

func (t Tree) make(ctx context.Context, args ...string) error {
	if err := t.run(ctx, "make", append(args, notUsed...)...); err != nil {
		return fmt.Errorf("make %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// run runs a tool in the tree. When ctx ends, the tool and all that it started are told to stop.
func (t Tree) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.Dir
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = t.Log, t.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// environment is all that the tools see of the caller's: flags in MAKEFLAGS, KCFLAGS and the like would change bytes.
func environment() []string {
	env := []string{
		"ARCH=x86_64",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
		"KBUILD_BUILD_USER=ashlar",
		"KBUILD_BUILD_HOST=ashlar",
		"KBUILD_BUILD_VERSION=1",
		"LOCALVERSION=", // set and empty: nothing about a git tree around us
		"LC_ALL=C",
		"TZ=UTC",
		"XZ_DEFAULTS=--threads=0",
	}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
