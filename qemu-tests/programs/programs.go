// Package programs makes a disk with Debian's fio and iperf3, and the libraries that they
// need, for the small guest to run them from: an ext4 file system, the root of a chroot(2).
// It needs no root. The result is cached by a hash of the recipe (this file and package
// debian).
package programs

import (
	_ "embed"
	"fmt"
	"os/exec"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
	"github.com/ashlar-hv/ashlar/qemu-tests/debian"
)

//go:embed programs.go
var recipe []byte

// size of the image, for mke2fs.
const size = "72M"

var files = debian.Files{
	Suite:    "trixie",
	Packages: []string{"fio", "iperf3", "base-files"},
	Keep: []string{
		"usr/bin/fio", "usr/bin/iperf3", "lib", "lib64", "usr/lib64/*",
		"usr/lib/x86_64-linux-gnu/*.so*", "usr/lib/x86_64-linux-gnu/ceph/*.so*", // fio is linked with librbd
	},
	Folders: []string{"dev", "proc", "sys", "tmp"},
}

// Image returns the path of the disk, which is made where the cache has none. say is told
// what takes long.
func Image(say func(string)) (string, error) {
	return debian.Cached("programs", "programs.img", recipe, func(dir, image string) error {
		root, _, err := files.Unpack(dir, say)
		if err != nil {
			return err
		}
		mke2fs, err := xfsimage.Find("mke2fs")
		if err != nil {
			return err
		}
		c := exec.Command(mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", "512", "-d", root, image, size)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("make %s: %w\n%s", image, err, out)
		}
		return nil
	})
}
