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
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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
	sum := sha256.Sum256(recipe)
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "demo", hex.EncodeToString(sum[:8]))
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		if err := build(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, name := range results {
		if err := link(filepath.Join(dir, name), filepath.Join(out, name)); err != nil {
			return err
		}
	}
	fmt.Printf("demo: Debian guest in %s (%.1f s)\n", out, time.Since(start).Seconds())
	return nil
}

func cacheDir() (string, error) {
	if d := os.Getenv("ASHLAR_CACHE"); d != "" {
		return d, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w: set ASHLAR_CACHE", err)
	}
	return filepath.Join(d, "ashlar"), nil
}

// lock makes dir and keeps others from building in it.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// link makes to a symbolic link to from, in one step.
func link(from, to string) error {
	tmp := to + ".new"
	os.Remove(tmp)
	if err := os.Symlink(from, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// build makes the results in dir, and a file named complete last.
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
	if err := extract(root, dir); err != nil {
		return err
	}
	fmt.Println("demo: making the file system")
	disk := filepath.Join(tmp, "disk.img")
	if err := fill(root, filepath.Join(tmp, "root"), disk); err != nil {
		return err
	}
	if err := os.Rename(disk, filepath.Join(dir, "disk.img")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "complete"), nil, 0o644)
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
	c := exec.Command("mmdebstrap", args...)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	stop := ticker("demo: mmdebstrap is at work")
	defer stop()
	if err := c.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, tail(log.String(), 30))
	}
	return nil
}

// ticker prints what and the time it has taken every ten seconds.
func ticker(what string) func() {
	start, done := time.Now(), make(chan struct{})
	go func() {
		for t := time.NewTicker(10 * time.Second); ; {
			select {
			case <-done:
				t.Stop()
				return
			case <-t.C:
				fmt.Printf("%s (%.0f s)\n", what, time.Since(start).Seconds())
			}
		}
	}()
	return func() { close(done) }
}

// extract takes kernel and initrd out of the archive root.
func extract(root, dir string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	found := 0
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", root, err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		for prefix, to := range map[string]string{"boot/vmlinuz-": "vmlinuz", "boot/initrd.img-": "initrd.img"} {
			if h.Typeflag != tar.TypeReg || !strings.HasPrefix(name, prefix) {
				continue
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
				return err
			}
			found++
		}
	}
	if found != 2 {
		return fmt.Errorf("found %d of kernel and initrd in the guest's /boot, want 2", found)
	}
	return nil
}

// fill makes an ext4 file system with what is in the archive root.
func fill(root, dir, disk string) error {
	script := fmt.Sprintf("PATH=$PATH:/sbin:/usr/sbin && mkdir %[2]q && tar -xpf %[1]q --numeric-owner -C %[2]q --exclude './dev/*' --exclude './boot/*' && "+
		"mke2fs -q -t ext4 -L demo -d %[2]q %[3]q "+diskSize, root, dir, disk)
	out, err := exec.Command("fakeroot", "--", "sh", "-e", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make the file system: %w\n%s", err, tail(string(out), 30))
	}
	return nil
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
