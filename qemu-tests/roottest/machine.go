package roottest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/hugelgupf/vmtest/qemu"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// manyCPUs are the options of a machine with two NUMA nodes, each with two cores of two
// threads, and 1 GiB of its memory of 4 GiB on the second.
var manyCPUs = []string{"-smp", "8,sockets=2,cores=2,threads=2",
	"-object", "memory-backend-ram,id=near,size=3G", "-object", "memory-backend-ram,id=far,size=1G",
	"-numa", "node,nodeid=0,memdev=near,cpus=0-3", "-numa", "node,nodeid=1,memdev=far,cpus=4-7"}

// boot runs a kernel in QEMU until it switches the machine off, and returns
// what it printed. many is whether the machine has manyCPUs, which is no place for guests
// in software emulation. All use of hugelgupf/vmtest is here.
func boot(ctx context.Context, kernel, initrd string, many bool, cmdline ...string) (string, error) {
	var (
		mu   sync.Mutex
		text strings.Builder
	)
	args := []string{"-nodefaults", "-serial", "stdio", "-display", "none", "-m", "4G"}
	if lab.Hardware() {
		args = append(args, "-M", "q35", "-accel", "kvm", "-cpu", "host")
	} else {
		cpu := "EPYC,+svm,+npt,phys-bits=36"
		if many {
			cpu = "Nehalem" // the emulation tells of threads of a core as Intel does
		}
		args = append(args, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", cpu)
	}
	switch {
	case many:
		args = append(args, manyCPUs...)
	case lab.Hardware():
		args = append(args, "-smp", "2")
	default: // one CPU: see lab.Config
		args = append(args, "-smp", "1")
	}
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
	o.QEMUArgs = append(args, "-no-reboot") // not vmtest's -nographic, which adds devices
	vm, err := o.Start(ctx)
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
