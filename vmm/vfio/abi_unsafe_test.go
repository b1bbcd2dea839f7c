package vfio

import (
	"encoding/binary"
	"testing"
	"unsafe" // for sizes and offsets alone

	"golang.org/x/sys/unix"
)

// The numbers and sizes are those of linux/vfio.h and linux/iommufd.h.
func TestABI(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"VFIO_SET_IOMMU", setIOMMU, 0x3b66},
		{"VFIO_GROUP_GET_STATUS", groupStatusIoctl, 0x3b67},
		{"VFIO_GROUP_SET_CONTAINER", groupSetContainer, 0x3b68},
		{"VFIO_GROUP_GET_DEVICE_FD", groupGetDevice, 0x3b6a},
		{"VFIO_DEVICE_GET_INFO", deviceGetInfo, 0x3b6b},
		{"VFIO_DEVICE_GET_REGION_INFO", deviceGetRegion, 0x3b6c},
		{"VFIO_DEVICE_GET_IRQ_INFO", deviceGetIRQ, 0x3b6d},
		{"VFIO_DEVICE_SET_IRQS", deviceSetIRQs, 0x3b6e},
		{"VFIO_DEVICE_RESET", deviceReset, 0x3b6f},
		{"VFIO_IOMMU_MAP_DMA", mapDMA, 0x3b71},
		{"VFIO_DEVICE_PCI_HOT_RESET", deviceHotReset, 0x3b71},
		{"VFIO_IOMMU_UNMAP_DMA", unmapDMA, 0x3b72},
		{"VFIO_DEVICE_BIND_IOMMUFD", deviceBindIOMMUFD, 0x3b76},
		{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", deviceAttachIOAS, 0x3b77},
		{"IOMMU_IOAS_ALLOC", iommufdAllocIOAS, 0x3b81},
		{"IOMMU_IOAS_MAP", iommufdMap, 0x3b85},
		{"IOMMU_IOAS_UNMAP", iommufdUnmap, 0x3b86},
		{"struct vfio_device_info", unsafe.Sizeof(deviceInfo{}), 24},
		{"struct vfio_region_info", unsafe.Offsetof(regionInfo{}.caps), regionInfoSize},
		{"struct vfio_region_info.size", unsafe.Offsetof(regionInfo{}.size), 16},
		{"struct vfio_irq_info", unsafe.Sizeof(irqInfo{}), 16},
		{"struct vfio_irq_set", unsafe.Offsetof(irqSet{}.fds), irqSetSize},
		{"struct vfio_pci_hot_reset", unsafe.Sizeof(hotReset{}), 12},
		{"struct vfio_device_bind_iommufd", unsafe.Sizeof(bindIOMMUFD{}), 16},
		{"struct vfio_device_attach_iommufd_pt", unsafe.Sizeof(attachIOAS{}), 12},
		{"struct vfio_iommu_type1_dma_map", unsafe.Sizeof(dmaMap{}), 32},
		{"struct vfio_iommu_type1_dma_unmap", unsafe.Sizeof(dmaUnmap{}), 24},
		{"struct iommu_ioas_alloc", unsafe.Sizeof(allocIOAS{}), 12},
		{"struct iommu_ioas_map", unsafe.Sizeof(ioasMap{}), 40},
		{"struct iommu_ioas_unmap", unsafe.Sizeof(ioasUnmap{}), 24},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

// What a process may do that its guest has taken over is bound to what it has descriptors for.
func TestRules(t *testing.T) {
	for _, r := range Rules() {
		if r.Syscall == unix.SYS_IOCTL && (len(r.Args) != 1 || r.Args[0].Index != 1 || r.Args[0].Mask != ^uint64(0)) {
			t.Errorf("a rule is not for one ioctl: %+v", r)
		}
	}
}

func TestMappable(t *testing.T) {
	le := binary.LittleEndian
	info := func(flags uint32, areas ...uint64) *regionInfo {
		r := &regionInfo{flags: flags, size: 0x10000, capOffset: regionInfoSize + 16}
		le.PutUint16(r.caps[16:], capSparseMap)
		le.PutUint32(r.caps[24:], uint32(len(areas)/2))
		for i, v := range areas {
			le.PutUint64(r.caps[32+8*i:], v)
		}
		return r
	}
	round := info(regionHasCaps)
	le.PutUint16(round.caps[16:], 9)
	le.PutUint32(round.caps[20:], regionInfoSize+16)
	outside := info(regionHasCaps)
	outside.capOffset = 1 << 20
	many := info(regionHasCaps)
	le.PutUint32(many.caps[24:], maxSparse+1)
	for name, tt := range map[string]struct {
		r    *regionInfo
		want []area // nil: refused
	}{
		"whole":             {info(0), []area{{0, 0x10000}}},
		"sparse":            {info(regionHasCaps, 0, 0x1000, 0x3000, 0xd000), []area{{0, 0x1000}, {0x3000, 0xd000}}},
		"behind the end":    {info(regionHasCaps, 0x1000, 0x10000), nil},
		"no page":           {info(regionHasCaps, 0x800, 0x1000), nil},
		"overflow":          {info(regionHasCaps, 0x1000, ^uint64(0)), nil},
		"list goes round":   {round, nil},
		"list goes outside": {outside, nil},
		"too many":          {many, nil},
	} {
		got, err := mappable(tt.r)
		if (err != nil) != (tt.want == nil) || len(got) != len(tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		}
	}
}
