package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/initramfs/console"
	"github.com/ashlar-hv/ashlar/initramfs/mounts"
	"github.com/ashlar-hv/ashlar/initramfs/process"
)

// rescueShell is u-root's shell; its commands lie beside it.
const rescueShell = "/bbin/gosh"

// rescueOrNot keeps a root shell running if the command line asks for it, and
// removes u-root's commands from dir if not: that is memory, 10 MiB of it, and
// nothing that an intruder should find.
func (m *machine) rescueOrNot(dir string) {
	if m.options.Rescue != "" {
		m.rescue()
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		m.log.Printf("rescue", "remove the commands that nobody asked for: %v", err)
		return
	}
	m.log.Printf("rescue", "not asked for: its commands are removed")
}

// rescue keeps a root shell on the terminal that the command line names.
func (m *machine) rescue() {
	m.log.Printf("rescue", "the command line asks for it: a root shell on %s", m.options.Rescue)
	m.problem("A root shell is open on %s, because the kernel's command line asks for it.", m.options.Rescue)
	m.service("rescue shell", m.startShell)
}

func (m *machine) startShell() (*process.Process, error) {
	tty, err := os.OpenFile(filepath.Join("/dev", m.options.Rescue), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	fd := tty.Fd()
	p, err := m.reaper.Start(rescueShell, []string{"gosh"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/bbin:/bin", "HOME=/", "TERM=dumb"},
		Files: []uintptr{fd, fd, fd},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	if err != nil {
		return nil, err
	}
	if err := mounts.Apply(fmt.Sprintf("/proc/%d", p.PID), mounts.Any); err != nil { // what it runs is not the host
		m.log.Printf("rescue", "%v", err)
	}
	return p, nil
}

func uptimeSeconds() float64 { return console.Uptime().Seconds() }
