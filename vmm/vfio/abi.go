package vfio

import "structs"

// vfioIO is VFIO_TYPE, ioctl numbers of which carry no size and no direction; iommufdIO is
// IOMMUFD_TYPE, which is the same.
const (
	vfioIO   = ';' << 8
	vfioBase = 100
)

// Ioctls of containers, groups and devices (linux/vfio.h), and of an iommufd
// (linux/iommufd.h).
const (
	setIOMMU           = vfioIO | (vfioBase + 2)
	groupStatusIoctl   = vfioIO | (vfioBase + 3)
	groupSetContainer  = vfioIO | (vfioBase + 4)
	groupGetDevice     = vfioIO | (vfioBase + 6)
	deviceGetInfo      = vfioIO | (vfioBase + 7)
	deviceGetRegion    = vfioIO | (vfioBase + 8)
	deviceGetIRQ       = vfioIO | (vfioBase + 9)
	deviceSetIRQs      = vfioIO | (vfioBase + 10)
	deviceReset        = vfioIO | (vfioBase + 11)
	mapDMA             = vfioIO | (vfioBase + 13)
	unmapDMA           = vfioIO | (vfioBase + 14)
	deviceHotReset     = vfioIO | (vfioBase + 13) // the same number, of a device
	deviceBindIOMMUFD  = vfioIO | (vfioBase + 18)
	deviceAttachIOAS   = vfioIO | (vfioBase + 19)
	iommufdAllocIOAS   = vfioIO | 0x81
	iommufdMap         = vfioIO | 0x85
	iommufdUnmap       = vfioIO | 0x86
	type1v2            = 3 // VFIO_TYPE1v2_IOMMU
	groupViable        = 1 << 0
	deviceResets       = 1 << 0 // VFIO_DEVICE_FLAGS_RESET
	devicePCI          = 1 << 1
	regionMappable     = 1 << 2
	regionHasCaps      = 1 << 3
	capSparseMap       = 1
	irqEventFD         = 1 << 0
	irqNoResize        = 1 << 3
	setDataNone        = 1 << 0
	setDataEventFD     = 1 << 2
	setActionUnmask    = 1 << 4
	setActionTrigger   = 1 << 5
	dmaReadWrite       = 1<<0 | 1<<1
	iommuFixedReadable = 1<<0 | 1<<1 | 1<<2 // at a fixed address, writable, readable
)

// Indices of regions and interrupts of a PCI device (VFIO_PCI_…).
const (
	regionROM    = 6
	regionConfig = 7
	regionCount  = 8

	irqINTx    = 0
	irqMSI     = 1
	irqMSIX    = 2
	irqError   = 3
	irqRequest = 4
	irqCount   = 5
)

// groupStatus is struct vfio_group_status.
type groupStatus struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
}

// deviceInfo is struct vfio_device_info.
type deviceInfo struct {
	_         structs.HostLayout
	argsz     uint32
	flags     uint32
	regions   uint32
	irqs      uint32
	capOffset uint32
	pad       uint32
}

// maxSparse is how many areas that can be mapped a region is read with; devices have fewer.
const maxSparse = 64

// regionInfo is struct vfio_region_info with room for capabilities.
type regionInfo struct {
	_         structs.HostLayout
	argsz     uint32
	flags     uint32
	index     uint32
	capOffset uint32
	size      uint64
	offset    uint64
	caps      [64 + 16*maxSparse]byte
}

// regionInfoSize is that of struct vfio_region_info.
const regionInfoSize = 32

// irqInfo is struct vfio_irq_info.
type irqInfo struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	index uint32
	count uint32
}

// irqSet is struct vfio_irq_set with room for one descriptor, or for 32, which is all of MSI.
type irqSet struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	index uint32
	start uint32
	count uint32
	fds   [maxMSI]int32
}

// irqSetSize is struct vfio_irq_set without data.
const (
	irqSetSize = 20
	maxMSI     = 32
)

// hotReset is struct vfio_pci_hot_reset without groups: all that the iommufd has.
type hotReset struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	count uint32
}

// bindIOMMUFD is struct vfio_device_bind_iommufd.
type bindIOMMUFD struct {
	_       structs.HostLayout
	argsz   uint32
	flags   uint32
	iommufd int32
	devid   uint32
}

// attachIOAS is struct vfio_device_attach_iommufd_pt.
type attachIOAS struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	id    uint32
}

// dmaMap is struct vfio_iommu_type1_dma_map, dmaUnmap struct vfio_iommu_type1_dma_unmap.
type dmaMap struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	vaddr uint64
	iova  uint64
	size  uint64
}

type dmaUnmap struct {
	_     structs.HostLayout
	argsz uint32
	flags uint32
	iova  uint64
	size  uint64
}

// allocIOAS is struct iommu_ioas_alloc.
type allocIOAS struct {
	_     structs.HostLayout
	size  uint32
	flags uint32
	id    uint32
}

// ioasMap is struct iommu_ioas_map, ioasUnmap struct iommu_ioas_unmap.
type ioasMap struct {
	_        structs.HostLayout
	size     uint32
	flags    uint32
	ioas     uint32
	reserved uint32
	vaddr    uint64
	length   uint64
	iova     uint64
}

type ioasUnmap struct {
	_      structs.HostLayout
	size   uint32
	ioas   uint32
	iova   uint64
	length uint64
}
