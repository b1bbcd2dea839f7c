package roottest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/hugelgupf/vmtest/qemu"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// boot runs a kernel in QEMU until it switches the machine off, and returns
// what it printed. All use of hugelgupf/vmtest is here.
func boot(ctx context.Context, kernel, initrd string, cmdline ...string) (string, error) {
	var (
		mu   sync.Mutex
		text strings.Builder
	)
	args := []string{"-nodefaults", "-serial", "stdio", "-display", "none", "-m", "4G"}
	if lab.Hardware() {
		args = append(args, "-M", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "2")
	} else {
		// One CPU: see lab.Config.
		args = append(args, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt,phys-bits=36", "-smp", "1")
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
