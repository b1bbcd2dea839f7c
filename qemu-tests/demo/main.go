// Demo makes the Debian guest that `make run` shows: a raw disk image with
// Debian and systemd made by mmdebstrap(1), and Debian's own cloud kernel and
// initrd beside it. It needs no root: mmdebstrap unshares, and fakeroot(1)
// keeps the owners while mke2fs(8) fills the file system.
//
// The result is cached by a hash of the recipe (this file): Debian's updates
// are taken when the recipe changes or the cache is cleared.
//
// Usage: go run ./qemu-tests/demo [-o out/demo]
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/cache"
)

//go:embed main.go
var recipe []byte

const (
	suite    = "bookworm"
	diskSize = "1G"
)

var packages = []string{
	"systemd", "systemd-sysv", "udev", "dbus", "login", "iproute2", "iputils-ping",
	"kmod", "linux-image-cloud-amd64", "initramfs-tools", "zstd",
}

// files are written into the guest.
var files = map[string]string{
	"/etc/hostname":                        "demo\n",
	"/etc/fstab":                           "/dev/vda / ext4 defaults 0 1\n",
	"/etc/systemd/network/10-dhcp.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
	"/etc/motd":                            "A Debian guest on Ashlar. `ping 10.88.0.1` reaches the host, `poweroff` switches it off.\n",
	"/etc/issue":                           "Debian \\r on Ashlar (\\l): log in as root, without a password\n\n",
}

// commands run in the guest's root, as chroot(8) from mmdebstrap's hooks.
var commands = []string{
	"passwd -d root",
	"systemctl enable systemd-networkd.service",
	"systemctl mask e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer systemd-networkd-wait-online.service getty@tty1.service e2scrub_all.timer fstrim.timer",
}

func main() {
	out := flag.String("o", "out/demo", "folder to put disk.img, vmlinuz and initrd.img in")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

var results = []string{"disk.img", "vmlinuz", "initrd.img"}

func run(out string) error {
	start := time.Now()
	dir, err := cache.Get("demo", recipe, build)
	if err != nil {
		return err
	}
	if err := cache.Link(dir, out, results); err != nil {
		return err
	}
	fmt.Printf("demo: Debian guest in %s (%.1f s)\n", out, time.Since(start).Seconds())
	return nil
}

// build makes the results in dir.
func build(dir string) error {
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	root := filepath.Join(tmp, "root.tar")
	fmt.Printf("demo: mmdebstrap %s: %s\n", suite, strings.Join(packages, " "))
	if err := debstrap(root); err != nil {
		return err
	}
	fmt.Println("demo: taking out the kernel and the initrd")
	if err := cache.Extract(root, dir, map[string]string{"boot/vmlinuz-*": "vmlinuz", "boot/initrd.img-*": "initrd.img"}); err != nil {
		return err
	}
	fmt.Println("demo: making the file system")
	disk := filepath.Join(tmp, "disk.img")
	if err := fill(root, filepath.Join(tmp, "root"), disk); err != nil {
		return err
	}
	return os.Rename(disk, filepath.Join(dir, "disk.img"))
}

// debstrap makes a tar archive of the guest's root.
func debstrap(to string) error {
	args := []string{
		"--variant=minbase", "--include=" + strings.Join(packages, ","),
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		`--aptopt=Acquire::Languages "none"`,
	}
	for path, text := range files {
		quoted := strings.NewReplacer("\\", "\\\\", "\n", "\\n", "%", "%%").Replace(text)
		args = append(args, fmt.Sprintf("--customize-hook=mkdir -p \"$1%s\" && printf '%s' > \"$1%s\"", filepath.Dir(path), quoted, path))
	}
	for _, c := range commands {
		args = append(args, fmt.Sprintf(`--customize-hook=chroot "$1" %s`, c))
	}
	args = append(args, `--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*`, suite, to)
	return cache.Run("demo", exec.Command("mmdebstrap", args...))
}

// fill makes an ext4 file system with what is in the archive root.
func fill(root, dir, disk string) error {
	script := fmt.Sprintf("PATH=$PATH:/sbin:/usr/sbin && mkdir %[2]q && tar -xpf %[1]q --numeric-owner -C %[2]q --exclude './dev/*' --exclude './boot/*' && "+
		"mke2fs -q -t ext4 -L demo -d %[2]q %[3]q "+diskSize, root, dir, disk)
	return cache.Run("demo", exec.Command("fakeroot", "--", "sh", "-e", "-c", script))
}
