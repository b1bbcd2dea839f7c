package main

import (
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
)

// holdKVM makes an empty VM that core keeps for its life. While there is one,
// the kernel neither turns hardware virtualization on and off on every CPU nor
// patches its scheduler (the preempt notifiers' static key) each time that the
// first guest starts and the last one ends. Under QEMU's software emulation a CPU
// that runs into such a patch can take the host down.
func holdKVM() (release func(), err error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("guests cannot run: %w", err)
	}
	sys, err := kvm.Open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("guests cannot run: %w", err)
	}
	vm, err := sys.CreateVM()
	if err != nil {
		sys.Close()
		return nil, fmt.Errorf("guests cannot run: %w", err)
	}
	return func() {
		vm.Close()
		sys.Close()
	}, nil
}
