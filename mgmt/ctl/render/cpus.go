package render

import (
	"fmt"
	"strconv"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// CPUCount is how many processors a virtual machine has now, or begins with, and where
// that can change how many it may come to have: `2/8`.
func CPUCount(vm *ashlarv1.VirtualMachine) string {
	n := vm.GetCpus()
	if vm.GetPresentCpus() > 0 {
		n = vm.GetPresentCpus()
	}
	if vm.GetMaxCpus() == 0 {
		return strconv.Itoa(int(n))
	}
	return fmt.Sprintf("%d/%d", n, vm.GetMaxCpus())
}

// cpus is the same in words.
func cpus(vm *ashlarv1.VirtualMachine) string {
	s := strconv.Itoa(int(vm.GetCpus()))
	if vm.GetMaxCpus() > 0 {
		s += fmt.Sprintf(" of at most %d", vm.GetMaxCpus())
	}
	if n := vm.GetPresentCpus(); n > 0 && n != vm.GetCpus() {
		s += fmt.Sprintf(" (%d in the guest now)", n)
	}
	return s
}
