// mountinit is the whole initramfs of the mount test: it formats the disks it
// finds with package xfs, mounts them, writes, shares blocks between two files,
// mounts again and reads back. It says "mountinit: ok" if all of it works, and
// powers the machine off.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

var id = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func main() {
	defer func() {
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	if err := run(); err != nil {
		fmt.Println("mountinit: failed:", err)
		return
	}
	fmt.Println("mountinit: ok")
}

func run() error {
	for _, dir := range []string{"/dev", "/mnt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("dev", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, path := range []string{"/dev/vda", "/dev/vdb", "/dev/nvme0n1"} {
		if err := check(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Println("mountinit:", path, "works")
	}
	return nil
}

func check(path string) error {
	if err := format(path); err != nil {
		return err
	}
	if err := mounted(path, fillIt); err != nil {
		return err
	}
	return mounted(path, readIt)
}

func format(path string) error {
	for range 100 {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := xfs.Format(f, size, xfs.Options{Label: "ashlar-data", UUID: id}); err != nil {
		return err
	}
	fmt.Printf("mountinit: %s: %d MiB formatted in %v\n", path, size>>20, time.Since(start).Round(time.Millisecond))
	_, err = xfs.Probe(f)
	return err
}

func mounted(path string, do func() error) error {
	if err := unix.Mount(path, "/mnt", "xfs", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	err := do()
	if e := unix.Unmount("/mnt", 0); e != nil && err == nil {
		return fmt.Errorf("unmount: %w", e)
	}
	return err
}

func contents() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 1<<19) }

// fillIt makes enough files that every group's trees are used, and a clone.
func fillIt() error {
	for i := range 500 {
		dir := fmt.Sprintf("/mnt/d%d", i%10)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), []byte(dir), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/mnt/a", contents(), 0o600); err != nil {
		return err
	}
	a, err := os.Open("/mnt/a")
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Create("/mnt/b")
	if err != nil {
		return err
	}
	defer b.Close()
	before, err := free()
	if err != nil {
		return err
	}
	if err := unix.IoctlFileClone(int(b.Fd()), int(a.Fd())); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	after, err := free()
	if err != nil {
		return err
	}
	if before-after > 64 {
		return fmt.Errorf("the clone took %d blocks", before-after)
	}
	if _, err := b.WriteAt([]byte("changed"), 4096*7); err != nil {
		return err
	}
	return b.Sync()
}

func readIt() error {
	for name, change := range map[string]string{"/mnt/a": "", "/mnt/b": "changed"} {
		got, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		want := contents()
		copy(want[4096*7:], change)
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s does not hold what was written", name)
		}
	}
	return nil
}

func free() (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs("/mnt", &st)
	return int64(st.Bfree), err
}
