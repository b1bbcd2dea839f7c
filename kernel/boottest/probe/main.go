// Command probe is PID 1 of the boot test: it looks at what the kernel under it can do, prints a line "have WHAT" for
// each thing it finds, and powers off.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func have(kind, what string) { fmt.Printf("have %s:%s\n", kind, what) }

// mounts are the file systems that show what the kernel has.
var mounts = []struct{ kind, dir string }{
	{"devtmpfs", "/dev"},
	{"proc", "/proc"},
	{"sysfs", "/sys"},
	{"cgroup2", "/sys/fs/cgroup"},
	{"securityfs", "/sys/kernel/security"},
	{"tmpfs", "/tmp"},
}

// lists are folders whose entries are what is had.
var lists = []struct{ kind, dir string }{
	{"driver", "/sys/bus/pci/drivers"},
	{"service", "/sys/bus/pci_express/drivers"},
	{"misc", "/sys/class/misc"},
	{"tty", "/sys/class/tty"},
	{"watchdog", "/sys/class/watchdog"},
	{"iommu-group", "/sys/kernel/iommu_groups"},
	{"hugepages", "/sys/kernel/mm/hugepages"},
	{"namespace", "/proc/self/ns"},
	{"input", "/sys/class/input"},
	{"proc", "/proc"},
	{"dev", "/dev"},
}

// words are files whose words are what is had.
var words = []struct{ kind, file string }{
	{"filesystem", "/proc/filesystems"},
	{"controller", "/sys/fs/cgroup/cgroup.controllers"},
	{"lsm", "/sys/kernel/security/lsm"},
	{"lockdown", "/sys/kernel/security/lockdown"},
	{"tcp", "/proc/sys/net/ipv4/tcp_available_congestion_control"},
}

// calls are system calls, tried with arguments that do nothing: all but a missing one answer something else than ENOSYS.
var calls = []struct {
	name   string
	number uintptr
}{
	{"io_uring_setup", unix.SYS_IO_URING_SETUP},
	{"userfaultfd", unix.SYS_USERFAULTFD},
	{"landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET},
	{"seccomp", unix.SYS_SECCOMP},
	{"memfd_create", unix.SYS_MEMFD_CREATE},
	{"memfd_secret", unix.SYS_MEMFD_SECRET},
	{"bpf", unix.SYS_BPF},
	{"kexec_load", unix.SYS_KEXEC_LOAD},
	{"init_module", unix.SYS_INIT_MODULE},
	{"swapon", unix.SYS_SWAPON},
}

// sockets are address families and protocols.
var sockets = []struct {
	name                   string
	family, kind, protocol int
}{
	{"inet", unix.AF_INET, unix.SOCK_STREAM, 0},
	{"inet6", unix.AF_INET6, unix.SOCK_STREAM, 0},
	{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
	{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	{"netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
	{"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
}

func run() {
	for _, m := range mounts {
		if err := mount(m.kind, m.dir); err != nil {
			fmt.Printf("mount %s: %v\n", m.kind, err)
		}
	}
	for _, l := range lists {
		entries, _ := os.ReadDir(l.dir)
		for _, e := range entries {
			have(l.kind, filepath.Base(e.Name()))
		}
	}
	for _, w := range words {
		content, _ := os.ReadFile(w.file)
		for word := range strings.FieldsFuncSeq(string(content), func(r rune) bool { return strings.ContainsRune(" ,\n\t[]", r) }) {
			have(w.kind, word)
		}
	}
	for _, c := range calls {
		if _, _, errno := unix.Syscall6(c.number, 0, 0, ^uintptr(0), ^uintptr(0), 0, 0); !errors.Is(errno, unix.ENOSYS) {
			have("call", c.name)
		}
	}
	for _, s := range sockets {
		if fd, err := unix.Socket(s.family, s.kind, s.protocol); err == nil {
			have("socket", s.name)
			unix.Close(fd)
		}
	}
	cpu()
}

func mount(kind, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount(kind, dir, kind, 0, "")
}

// cpu prints the flags the kernel uses of the processor, and whether KVM has nested paging.
func cpu() {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if flags, ok := strings.CutPrefix(s.Text(), "flags\t\t: "); ok {
			for flag := range strings.FieldsSeq(flags) {
				have("cpu", flag)
			}
			break
		}
	}
	if npt, err := os.ReadFile("/sys/module/kvm_amd/parameters/npt"); err == nil && npt[0] == 'Y' {
		have("kvm", "npt")
	}
}

func main() {
	fmt.Println("probe: start")
	run()
	fmt.Println("probe: done")
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("power off:", err)
	}
}
