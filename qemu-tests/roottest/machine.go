package roottest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hugelgupf/vmtest/qemu"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
	"github.com/ashlar-hv/ashlar/qemu-tests/onecpu"
	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
)

// manyCPUs are options that give the machine two NUMA nodes, each with two cores of two
// threads, and 1 GiB of its memory of 4 GiB on the second. In software emulation it runs no
// guests.
func manyCPUs() []string {
	options := []string{"-smp", "8,sockets=2,cores=2,threads=2",
		"-object", "memory-backend-ram,id=near,size=3G", "-object", "memory-backend-ram,id=far,size=1G",
		"-numa", "node,nodeid=0,memdev=near,cpus=0-3", "-numa", "node,nodeid=1,memdev=far,cpus=4-7"}
	if !lab.Hardware() {
		options = append(options, "-cpu", "Nehalem") // the emulation tells of threads of a core as Intel does
	}
	return options
}

// ends is the file that QEMU writes about a machine's end.
const ends = "qemu.log"

// boot runs a kernel in QEMU until it switches the machine off, and returns
// what it printed. All use of hugelgupf/vmtest is here.
func boot(ctx context.Context, dir, kernel, initrd string, hardware []string, cmdline ...string) (string, error) {
	var (
		mu   sync.Mutex
		text strings.Builder
	)
	args := []string{"-nodefaults", "-serial", "stdio", "-display", "none", "-m", "4G"}
	// With 36 bits of physical addresses the firmware puts the BARs of virtual functions below
	// 4 GiB: QEMU's answer there only.
	if lab.Hardware() {
		args = append(args, "-M", "q35", "-accel", "kvm,kernel-irqchip=split", "-cpu", "host,host-phys-bits-limit=36", "-smp", "2")
	} else {
		// One CPU, and one thread where hardware says more: see lab.Config.
		args = append(args, "-M", "q35", "-accel", "tcg,thread=single", "-cpu", "EPYC,+svm,+npt,phys-bits=36", "-smp", "1")
	}
	args = append(args, hardware...)
	o, err := qemu.OptionsFor(qemu.ArchAMD64,
		qemu.WithQEMUCommand("qemu-system-x86_64"),
		qemu.WithKernel(kernel),
		qemu.WithInitramfs(initrd),
		qemu.WithAppendKernel(cmdline...),
		qemu.HaltOnKernelPanic(),
		qemu.LogSerialByLine(func(line string) {
			mu.Lock()
			defer mu.Unlock()
			text.WriteString(line + "\n")
		}),
	)
	if err != nil {
		return "", err
	}
	// Not vmtest's -nographic, which adds devices. Who asked for its end tells of a machine that is
	// gone (QEMU's ShutdownCause).
	o.QEMUArgs = append(args, "-no-reboot", "-d", "trace:qemu_system_shutdown_request,trace:runstate_set", "-D", filepath.Join(dir, ends))
	var vm *qemu.VM
	start := func() (err error) {
		vm, err = o.Start(ctx)
		return err
	}
	if lab.Hardware() {
		err = start()
	} else {
		err = onecpu.Start(start)
	}
	if err != nil {
		return "", fmt.Errorf("start QEMU: %w", err)
	}
	err = vm.Wait()
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		err = fmt.Errorf("%w\ncommand: %s", err, vm.CmdlineQuoted())
	}
	return text.String(), err
}

// DiskText is what the disk of Hardware begins with.
const DiskText = "ashlar-passthrough"

// devices are the arguments for an IOMMU and devices that can be given to guests: a NIC with
// virtual functions, an NVMe disk, an NVMe controller with memory and an expansion ROM but without
// a disk, and a USB controller that sends up to four messages of MSI, each behind a port of its own.
// It makes the disk's file in dir.
func devices(dir string) ([]string, error) {
	file, err := diskFile(dir, "nvme", DiskText)
	if err != nil {
		return nil, err
	}
	rom, err := expansionROM(dir)
	if err != nil {
		return nil, err
	}
	return []string{
		"-device", "intel-iommu,intremap=on,caching-mode=on",
		"-device", "pcie-root-port,id=rp1,chassis=1", "-device", "pcie-root-port,id=rp2,chassis=2",
		"-netdev", "user,id=n0", "-device", "igb,bus=rp1,netdev=n0",
		"-drive", "if=none,id=nv,format=raw,file=" + file, "-device", "nvme,serial=lab,bus=rp2,drive=nv",
		"-device", "pcie-root-port,id=rp3,chassis=3", "-device", "nvme,serial=peer,bus=rp3,cmb_size_mb=1,romfile=" + rom,
		"-device", "pcie-root-port,id=rp6,chassis=6", "-device", "nec-usb-xhci,bus=rp6,id=usb,intrs=4,msi=on,msix=off", "-device", "usb-kbd,bus=usb.0",
	}, nil
}

// BigBAR is the size of what bigBAR has.
const BigBAR = 16 << 30

// bigBAR are the arguments for a device with a BAR of that size, of memory that both sides
// may read and write. The firmware then puts others above 4 GiB, too (see boot).
func bigBAR() []string {
	return []string{
		"-object", fmt.Sprintf("memory-backend-ram,id=big,size=%d,share=on,reserve=off", BigBAR),
		"-device", "pcie-root-port,id=rp5,chassis=5", "-device", "ivshmem-plain,bus=rp5,memdev=big",
	}
}

// expansionROM makes a file with an expansion ROM that does nothing and has DiskText at its
// end (PCI Firmware 3.0, section 5.1).
func expansionROM(dir string) (string, error) {
	const size, header = 1024, 0x1c
	b := make([]byte, size)
	copy(b, []byte{0x55, 0xaa, size / 512, 0xcb}) // retf
	b[0x18] = header
	copy(b[header:], "PCIR\x36\x1b\x10\x00\x00\x00\x18\x00\x00\x02\x08\x01")
	b[header+0x10], b[header+0x15] = size/512, 0x80 // the last image
	copy(b[size-len(DiskText):], DiskText)
	path := filepath.Join(dir, "rom")
	return path, os.WriteFile(path, b, 0o600)
}

// controller are the arguments for lab.Controller with two namespaces. Each begins with DiskText
// and its number.
func controller(dir string) ([]string, error) {
	var files []string
	for _, n := range []string{"1", "2"} {
		file, err := diskFile(dir, "ns"+n, DiskText+n)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return lab.Controller(files...), nil
}

// scratchDisk are the arguments for the disk of package scratch.
func scratchDisk(dir string) ([]string, error) {
	path, err := diskFile(dir, "scratch", "")
	if err == nil {
		err = os.Truncate(path, scratch.Size)
	}
	return []string{"-drive", "if=none,id=scratch,format=raw,cache=unsafe,file=" + path, "-device", "virtio-blk-pci,drive=scratch,serial=" + scratch.Serial}, err
}

// diskFile makes a file for a disk that begins with a text.
func diskFile(dir, name, text string) (string, error) {
	const size = 16 << 20
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", err
	}
	return path, os.Truncate(path, size)
}
