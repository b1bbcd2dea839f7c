package vfio

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Remapping tells whether the IOMMU remaps interrupts, so that a device can raise no others than
// those that it was given. sysfs tells whether an IOMMU could, not whether it does; but where it does, the
// kernel puts `IR-` before the names of the interrupt chips behind it (prefix of their
// msi_parent_ops; the chip of the IO-APIC), and there are always some. VFIO looks again when
// a device is attached, and refuses (EPERM).
func Remapping() (bool, error) { return remapping(sysfs) }

func remapping(root string) (bool, error) {
	dir := filepath.Join(root, "kernel/irq")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("look for interrupt remapping: %w", err)
	}
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join(dir, e.Name(), "chip_name"))
		if err == nil && strings.HasPrefix(string(name), "IR-") {
			return true, nil
		}
	}
	return false, nil
}

// UnsafeAllowed names the module parameters that let devices have interrupts which nobody remaps,
// where somebody has set one: nothing here does.
func UnsafeAllowed() (set []string) { return unsafeAllowed(sysfs) }

func unsafeAllowed(root string) (set []string) {
	for _, module := range []string{"iommufd", "vfio_iommu_type1"} {
		name := filepath.Join("module", module, "parameters/allow_unsafe_interrupts")
		value, err := os.ReadFile(filepath.Join(root, name))
		if err == nil && strings.TrimSpace(string(value)) == "Y" {
			set = append(set, module+".allow_unsafe_interrupts")
		}
	}
	return set
}
