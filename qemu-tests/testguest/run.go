package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// programs is where the disk with programs is mounted.
const programs = "/programs"

// printed is how much of what a program printed is shown, its end: the serial port takes
// its time.
const printed = 300

// run runs a program of the disk f[0] with that as its root, and returns what it printed.
func run(f []string) (string, error) {
	c, err := program(f)
	if err != nil {
		return "", err
	}
	return output(c)
}

// start is run without waiting for the end, which it tells.
func start(f []string) error {
	c, err := program(f)
	if err != nil {
		return err
	}
	go func() {
		text, err := output(c)
		if err != nil {
			fmt.Println("ERR start:", err)
			return
		}
		fmt.Println("ENDED", text)
	}()
	return nil
}

// output runs a program and returns the end of what it prints, in one line.
func output(c *exec.Cmd) (string, error) {
	out, err := c.CombinedOutput()
	text := strings.Join(strings.Fields(string(out)), " ")
	if len(text) > printed {
		text = "… " + strings.ToValidUTF8(text[len(text)-printed:], "")
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return text, nil
}

func program(f []string) (*exec.Cmd, error) {
	if len(f) < 2 {
		return nil, errors.New("which program of which disk?")
	}
	if err := mountPrograms(f[0]); err != nil {
		return nil, err
	}
	c := exec.Command(f[1], f[2:]...)
	c.SysProcAttr = &unix.SysProcAttr{Chroot: programs}
	c.Dir = "/"
	return c, nil
}

// mountPrograms mounts the disk, and in it what programs use of the kernel's.
func mountPrograms(device string) error {
	if _, err := os.Stat(filepath.Join(programs, "usr")); err == nil {
		return nil
	}
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, programs, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	for _, m := range []string{"dev", "proc", "sys"} {
		if err := unix.Mount("/"+m, filepath.Join(programs, m), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s for programs: %w", m, err)
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(programs, "tmp"), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount tmp for programs: %w", err)
	}
	return nil
}
