package lab

import "fmt"

// Values of Config.IOMMU.
const (
	// WithoutIOMMU is a machine that has none: any device reaches all memory.
	WithoutIOMMU = "none"
	// WithoutRemapping is one whose IOMMU leaves interrupts alone.
	WithoutRemapping = "no-interrupt-remapping"
)

// iommu are the options of QEMU for the IOMMU. It comes before the devices that it is to see.
func (l *Lab) iommu() ([]string, error) {
	switch l.IOMMU {
	case "":
		return []string{"-device", "intel-iommu,intremap=on,caching-mode=on"}, nil
	case WithoutIOMMU:
		return nil, nil
	case WithoutRemapping:
		return []string{"-device", "intel-iommu,intremap=off,caching-mode=on"}, nil
	}
	return nil, fmt.Errorf("IOMMU %q: want nothing, %s or %s", l.IOMMU, WithoutIOMMU, WithoutRemapping)
}
