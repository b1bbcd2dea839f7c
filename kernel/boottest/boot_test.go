package boottest

import (
	"strings"
	"testing"
)

// both checks what the two kernels share.
func both(t *testing.T, had map[string]bool, log string) {
	t.Helper()
	check(t, had, true, "misc", "kvm vhost-net vhost-vsock tun vsock userfaultfd hw_random")
	check(t, had, true, "kvm", "npt")
	check(t, had, true, "cpu", "svm")
	check(t, had, true, "controller", "cpu cpuset io memory pids hugetlb")
	check(t, had, true, "lsm", "landlock")
	check(t, had, true, "namespace", "cgroup ipc mnt net pid time user uts")
	check(t, had, true, "call", "io_uring_setup userfaultfd landlock_create_ruleset seccomp memfd_create")
	check(t, had, true, "socket", "inet inet6 packet vsock netfilter")
	check(t, had, true, "filesystem", "tmpfs devtmpfs hugetlbfs xfs")
	check(t, had, true, "hugepages", "hugepages-2048kB hugepages-1048576kB")
	check(t, had, true, "tty", "ttyS0 ttyS1 ttyS2 ttyS3")
	check(t, had, true, "driver", "virtio-pci nvme igbvf")
	check(t, had, true, "service", "pciehp")
	check(t, had, true, "input", "event0")
	check(t, had, false, "call", "bpf kexec_load init_module swapon")
	check(t, had, false, "socket", "alg")
	check(t, had, false, "proc", "modules kcore config.gz")
	for _, bad := range []string{"PAT support disabled", "BUG:", "Oops"} {
		if strings.Contains(log, bad) {
			t.Errorf("the kernel says %q", bad)
		}
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	had, log := boot(t, "bzImage", "intel_iommu=on lockdown=integrity", "-M", "q35,kernel-irqchip=split",
		"-device", "intel-iommu,intremap=on,caching-mode=on", "-device", "virtio-rng-pci", "-device", "i6300esb",
		"-device", "pcie-root-port,id=rp1,chassis=1", "-device", "igb,bus=rp1", "-device", "megasas")
	both(t, had, log)
	check(t, had, true, "misc", "vfio iommu device-mapper")
	check(t, had, true, "driver", "vfio-pci ahci xhci_hcd ehci-pci megaraid_sas mpt3sas smartpqi hpsa vmd")
	check(t, had, true, "driver", "e1000 e1000e igb igc ixgbe ixgbevf i40e iavf ice bnxt_en bnx2x tg3 mlx4_core mlx5_core r8169")
	check(t, had, true, "filesystem", "vfat efivarfs pstore")
	check(t, had, true, "service", "aer dpc")
	check(t, had, true, "lsm", "lockdown yama")
	check(t, had, true, "lockdown", "none integrity confidentiality")
	check(t, had, true, "iommu-group", "0 1 2")
	check(t, had, true, "watchdog", "watchdog0 watchdog1 watchdog2")
	check(t, had, true, "tty", "tty0 tty1")
	check(t, had, true, "call", "memfd_secret")
	check(t, had, false, "dev", "mem port")
	check(t, had, false, "filesystem", "ext4 9p nfs debugfs tracefs")
	for _, want := range []string{"Enabled IRQ remapping", "Kernel is locked down from command line"} {
		if !strings.Contains(log, want) {
			t.Errorf("the kernel does not say %q", want)
		}
	}
}

func TestGuest(t *testing.T) {
	t.Parallel()
	had, log := boot(t, "guest-bzImage", "earlycon=uart8250,io,0x3f8", guestDevices...)
	guest(t, had, log)
}

// TestGuestELF starts vmlinux: QEMU finds its PVH entry point.
func TestGuestELF(t *testing.T) {
	t.Parallel()
	had, log := boot(t, "guest-vmlinux", "", guestDevices...)
	guest(t, had, log)
}

var guestDevices = []string{
	"-M", "q35", "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-device", "virtio-serial-pci",
	"-chardev", "null,id=c", "-device", "virtconsole,chardev=c", "-device", "pcie-root-port,id=rp1,chassis=1",
}

func guest(t *testing.T, had map[string]bool, log string) {
	t.Helper()
	both(t, had, log)
	check(t, had, true, "filesystem", "ext4 9p virtiofs")
	check(t, had, true, "dev", "mem port hvc0 loop-control")
	check(t, had, true, "driver", "e1000e")
}
