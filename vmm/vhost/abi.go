package vhost

import "structs"

// vringState mirrors struct vhost_vring_state.
type vringState struct {
	_ structs.HostLayout

	index, num uint32
}

// vringFile mirrors struct vhost_vring_file; fd -1 unbinds.
type vringFile struct {
	_ structs.HostLayout

	index uint32
	fd    int32
}

// vringAddr mirrors struct vhost_vring_addr: addresses are of this process.
type vringAddr struct {
	_ structs.HostLayout

	index, flags            uint32
	desc, used, avail, logs uint64
}

// memoryRegion mirrors struct vhost_memory_region.
type memoryRegion struct {
	_ structs.HostLayout

	gpa, size, userAddr, flags uint64
}

// maxRegions is how many regions memoryTable has room for; guest memory has
// at most two.
const maxRegions = 8

// memoryTable mirrors struct vhost_memory with its regions.
type memoryTable struct {
	_ structs.HostLayout

	nregions, padding uint32
	regions           [maxRegions]memoryRegion
}

// ioctl numbers of linux/vhost.h, computed as asm-generic/ioctl.h does.
const (
	iocWrite  = 1
	iocRead   = 2
	vhostType = 0xaf

	sizeU64       = 8
	sizeInt       = 4
	sizeState     = 8
	sizeFile      = 8
	sizeAddr      = 40
	sizeMemHeader = 8 // struct vhost_memory without its flexible array

	setOwner      = vhostType<<8 | 0x01
	getFeatures   = iocRead<<30 | sizeU64<<16 | vhostType<<8 | 0x00
	setFeatures   = iocWrite<<30 | sizeU64<<16 | vhostType<<8 | 0x00
	setMemTable   = iocWrite<<30 | sizeMemHeader<<16 | vhostType<<8 | 0x03
	setVringNum   = iocWrite<<30 | sizeState<<16 | vhostType<<8 | 0x10
	setVringAddr  = iocWrite<<30 | sizeAddr<<16 | vhostType<<8 | 0x11
	setVringBase  = iocWrite<<30 | sizeState<<16 | vhostType<<8 | 0x12
	getVringBase  = (iocRead|iocWrite)<<30 | sizeState<<16 | vhostType<<8 | 0x12
	setVringKick  = iocWrite<<30 | sizeFile<<16 | vhostType<<8 | 0x20
	setVringCall  = iocWrite<<30 | sizeFile<<16 | vhostType<<8 | 0x21
	setVringErr   = iocWrite<<30 | sizeFile<<16 | vhostType<<8 | 0x22
	netSetBackend = iocWrite<<30 | sizeFile<<16 | vhostType<<8 | 0x30

	vsockSetGuestCID = iocWrite<<30 | sizeU64<<16 | vhostType<<8 | 0x60
	vsockSetRunning  = iocWrite<<30 | sizeInt<<16 | vhostType<<8 | 0x61
)
