package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// list is the names in a folder, in one line.
func list(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

// starve switches the watchdog on, which is to be fed within seconds, and never feeds it. It
// returns what the watchdog has to say of the last start (linux/watchdog.h).
func starve(seconds string) (string, error) {
	n, err := strconv.Atoi(seconds)
	if err != nil {
		return "", err
	}
	d, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	kept = append(kept, d)
	status, err := unix.IoctlGetInt(int(d.Fd()), unix.WDIOC_GETBOOTSTATUS)
	if err != nil {
		return "", fmt.Errorf("WDIOC_GETBOOTSTATUS: %w", err)
	}
	if err := unix.IoctlSetPointerInt(int(d.Fd()), unix.WDIOC_SETTIMEOUT, n); err != nil {
		return "", fmt.Errorf("WDIOC_SETTIMEOUT: %w", err)
	}
	return strconv.Itoa(status), nil
}

// crash makes the kernel panic (Documentation/admin-guide/sysrq.rst).
func crash() error { return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }
