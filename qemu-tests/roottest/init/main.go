// Init runs the test programs in /tests, one after the other, says whether all
// passed, and powers off. It is PID 1 of the machine that package roottest starts.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("roottest: FAILED:", err)
	} else {
		fmt.Println("roottest: all passed")
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"tmpfs", "/data"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// As Ashlar's init has it.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 20}); err != nil {
		return fmt.Errorf("raise the limit of descriptors: %w", err)
	}
	_ = os.Setenv("PATH", "/bin")
	_ = os.Setenv("HOME", "/tmp")
	tests, err := filepath.Glob("/tests/*")
	if err != nil {
		return err
	}
	var failed []string
	for _, t := range tests {
		cmd := exec.Command(t, "-test.v", "-test.timeout=7m", "-test.run="+option("run"), "-test.skip="+option("skip"))
		cmd.Dir = "/tmp"
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		fmt.Println("==>", t)
		if err := cmd.Run(); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", t, err))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%s", strings.Join(failed, "; "))
	}
	return nil
}

// option is one of the command line: roottest.NAME.
func option(name string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, "roottest."+name+"="); ok {
			return v
		}
	}
	return ""
}
