package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"

	"github.com/ashlar-hv/ashlar/initramfs/rescue"
)

// plainShell is the build tag for u-root's shell without a line editor: what
// talks to it over a serial port is as often a test as a person.
const plainShell = "goshsmall"

// A program is a Go command and where it goes in the initramfs.
type program struct {
	pkg, path string
	max       int64 // its largest size in bytes, 0 for any
}

// build compiles the programs into dir, static, stripped, and free of what
// differs between machines.
func build(dir, version string, programs []program) error {
	args := []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X main.version=" + version, "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, p.pkg)
	}
	c := exec.Command("go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w\n%s", err, out)
	}
	return checkSizes(dir, programs)
}

// checkSizes wants no program in dir to be larger than it may be.
func checkSizes(dir string, programs []program) error {
	for _, p := range programs {
		info, err := os.Stat(filepath.Join(dir, path.Base(p.pkg)))
		if err != nil {
			return fmt.Errorf("build programs: %w", err)
		}
		if p.max > 0 && info.Size() > p.max {
			return fmt.Errorf("build programs: %s has %d bytes, want %d at most (docs/SPECIFICATION.md): "+
				"`go list -deps %s` tells what it imports, `go tool nm -size -sort size` what is large", p.path, info.Size(), p.max, p.pkg)
		}
	}
	return nil
}

// rescueArchive returns a cpio archive of u-root's commands as one program. It
// builds it when the cache does not have it (fresh).
func rescueArchive(cache string) (file string, fresh bool, err error) {
	commands, err := rescue.Commands()
	if err != nil {
		return "", false, err
	}
	modules, err := modulesOf(commands)
	if err != nil {
		return "", false, err
	}
	key := sha256.Sum256([]byte(strings.Join([]string{plainShell, runtime.Version(), rescue.Source(), modules}, "\n")))
	file = filepath.Join(cache, fmt.Sprintf("rescue-%x.cpio", key[:8]))
	if _, err := os.Stat(file); err == nil {
		return file, false, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", false, fmt.Errorf("build rescue commands: %w", err)
	}
	work, err := os.MkdirTemp(cache, "rescue-")
	if err != nil {
		return "", false, fmt.Errorf("build rescue commands: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	err = uimage.Create(llog.New(slog.LevelError, llog.WritePrintf(os.Stderr)),
		uimage.WithEnv(golang.DisableCGO(), golang.WithGOOS("linux"), golang.WithGOARCH("amd64"), golang.WithMod("readonly"), golang.WithBuildTag(plainShell)),
		uimage.WithBusyboxCommands(commands...),
		uimage.WithSkipLDD(),
		uimage.WithTempDir(work),
		uimage.WithCPIOOutput(filepath.Join(work, "rescue.cpio")))
	if err != nil {
		return "", false, fmt.Errorf("build rescue commands: %w", err)
	}
	if err := os.Rename(filepath.Join(work, "rescue.cpio"), file); err != nil {
		return "", false, fmt.Errorf("build rescue commands: %w", err)
	}
	return file, true, nil
}

// modulesOf lists the modules that the commands are made of, with versions.
func modulesOf(commands []string) (string, error) {
	const format = "{{with .Module}}{{.Path}} {{.Version}}{{end}}"
	c := exec.Command("go", append([]string{"list", "-mod=readonly", "-deps", "-f", format}, commands...)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("list the modules of rescue commands: %w (run from the top of the source tree)", err)
	}
	lines := strings.Split(string(out), "\n")
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n"), nil
}
