// Package peer makes the machine that Ashlar is compared with: QEMU as Debian
// packages it, with its libraries, as the root of a chroot(2) on an XFS image.
// It needs no root. The result is cached by a hash of the recipe (this file and package
// debian).
package peer

import (
	_ "embed"
	"fmt"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
	"github.com/ashlar-hv/ashlar/qemu-tests/debian"
)

//go:embed peer.go
var recipe []byte

// size of the image in bytes.
const size = 512 << 20

// Programs in the image.
const (
	Microvm = "/usr/bin/qemu-system-x86_64-microvm"
	Full    = "/usr/bin/qemu-system-x86_64"
)

// files are those that QEMU needs to run a Linux guest, and mount points.
var files = debian.Files{
	Suite:    "trixie",
	Packages: []string{"qemu-system-x86", "base-files"},
	Keep: []string{
		"usr/bin/qemu-system-x86_64", "usr/bin/qemu-system-x86_64-microvm",
		"usr/lib/x86_64-linux-gnu/*.so*", "usr/lib64/*", "lib64/*", "lib", "lib64",
		"usr/lib/x86_64-linux-gnu/qemu/*", "usr/share/seabios/*",
		"usr/share/qemu/bios*", "usr/share/qemu/qboot.rom", "usr/share/qemu/linuxboot*", "usr/share/qemu/pvh.bin",
		"usr/share/qemu/kvmvapic.bin",
	},
	Folders: []string{"dev", "proc", "payload", "scratch"},
}

// Image returns the path of the image, which is made where the cache has none. say is
// told what takes long.
func Image(say func(string)) (string, error) {
	return debian.Cached("bench", "peer.img", recipe, func(dir, image string) error {
		root, tree, err := files.Unpack(dir, say)
		if err != nil {
			return err
		}
		say(fmt.Sprintf("making a file system of %d files of it", len(tree)))
		return xfsimage.Make(image, size, root, tree)
	})
}
