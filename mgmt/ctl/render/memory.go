package render

import (
	"fmt"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// Memory is how much memory a virtual machine has.
func Memory(m *ashlarv1.VirtualMachineMemory) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(m.GetName()))
	r.Add("Asked for:", size.Format(m.GetTargetBytes()))
	r.Add("Has:", size.Format(m.GetActualBytes()))
	r.Add("Maximum:", size.Format(m.GetMaxBytes()))
	return r
}

// plugged is what comes and goes of the memory, "" where nothing does.
func plugged(vm *ashlarv1.VirtualMachine) string {
	if vm.GetMaxMemoryBytes() == 0 {
		return ""
	}
	return fmt.Sprintf("%s plugged in, at most %s", size.Format(vm.GetHotplugMemoryBytes()), size.Format(vm.GetMaxMemoryBytes()))
}
