// bootinit is the whole initramfs of the boot test: it says that it runs, what
// the kernel's command line is, and which files the kernel has unpacked from an archive of
// microcode, and powers the machine off.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	defer func() {
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	_ = os.Mkdir("/proc", 0o555)
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("bootinit: mount /proc:", err)
		return
	}
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		fmt.Println("bootinit:", err)
		return
	}
	var list []string
	if entries, err := os.ReadDir("/microcode"); err == nil {
		for _, e := range entries {
			list = append(list, e.Name())
		}
		_, err := os.Lstat("/kernel")
		fmt.Printf("bootinit: microcode %v; %v\n", list, err)
	}
	fmt.Printf("bootinit: runs with %q\n", b)
}
