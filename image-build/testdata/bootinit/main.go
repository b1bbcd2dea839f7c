// bootinit is the whole initramfs of the boot test: it says that it runs, what
// the kernel's command line is, and powers the machine off.
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
	fmt.Printf("bootinit: runs with %q\n", b)
}
