// Kernels fetches kernels of other makers that the end-to-end tests boot, from
// Debian's packages: its generic kernel, the kernel and initrd of its
// installer, and iPXE. mmdebstrap(1) downloads and unpacks them, and has apt check
// Debian's signatures; nothing of them is run here, and it needs no root.
//
// The result is cached by a hash of the recipe (this file), as that of
// qemu-tests/demo.
//
// Usage: go run ./qemu-tests/kernels [-o out/kernels]
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/cache"
)

//go:embed main.go
var recipe []byte

const (
	suite     = "bookworm"
	installer = "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/"
)

var packages = []string{"linux-image-amd64", "debian-installer-12-netboot-amd64", "ipxe"}

// files are what is taken out of the packages, and its names in the result.
var files = map[string]string{
	"boot/vmlinuz-*":        "generic",
	installer + "linux":     "installer",
	installer + "initrd.gz": "installer-initrd.gz",
	"boot/ipxe.lkrn":        "ipxe.lkrn",
}

func main() {
	out := flag.String("o", "out/kernels", "folder to put the kernels in")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	start := time.Now()
	dir, err := cache.Get("kernels", recipe, build)
	if err != nil {
		return err
	}
	if err := cache.Link(dir, out, slices.Sorted(maps.Values(files))); err != nil {
		return err
	}
	fmt.Printf("kernels: %s in %s (%.1f s)\n", strings.Join(packages, ", "), out, time.Since(start).Seconds())
	return nil
}

// build has the packages unpacked, and takes the files out.
func build(dir string) error {
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	archive := filepath.Join(tmp, "packages.tar")
	fmt.Printf("kernels: mmdebstrap %s: %s\n", suite, strings.Join(packages, " "))
	c := exec.Command("mmdebstrap", "--variant=extract", "--include="+strings.Join(packages, ","),
		"--dpkgopt=path-exclude=/lib/modules/*", "--dpkgopt=path-exclude=*/gtk/*", `--aptopt=Acquire::Languages "none"`, suite, archive)
	if err := cache.Run("kernels", c); err != nil {
		return err
	}
	return cache.Extract(archive, dir, files)
}
