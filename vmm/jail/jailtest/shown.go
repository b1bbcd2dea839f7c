package jailtest

import "github.com/ashlar-hv/ashlar/vmm/jail"

// Reasons for rules that are used where no test can wait for it.
const (
	clock   = "the runtime, on machines whose clock cannot be read in user space"
	names   = "the runtime, on kernels with names for memory areas (CONFIG_ANON_VMA_NAME)"
	fatal   = "the runtime's way to die of a signal"
	resumes = "made by the kernel, when a thread goes on that was stopped while it slept"
	bigHeap = "the runtime, with a larger heap than tests come to"
	// What a guest's drivers, and the hot-plugging of its devices, have a VMM call: Guests show it.
	guest = "a guest's drivers"
	// The same with devices of the host's: Devices show it.
	device = "a guest with devices of the host's"
	idle   = "the runtime looks again every 30 s, where nobody has set GOMAXPROCS"
)

// Marked tells whether it takes a guest with drivers to have a VMM make the calls of r: those
// that the program built with the tag marked marks.
func Marked(r jail.Rule) bool {
	why := vmmSpare[r.String()]
	return why == guest || why == device
}

// vmmSpare are the rules of a VMM, by jail.Rule.String, that the tests of vmm/ashlar-vmm do
// not show, and why they are there.
var vmmSpare = map[string]string{
	"228":                        clock, // clock_gettime
	"96":                         clock, // gettimeofday
	"157 0=0x53564d41":           names,
	"13":                         fatal, // rt_sigaction
	"219":                        resumes,
	"28 2=0xe":                   bigHeap,
	"28 2=0xf":                   bigHeap,
	"204 0=0x0":                  idle,
	"426":                        guest,  // io_uring_enter
	"16 1=0xae03":                guest,  // KVM_CHECK_EXTENSION
	"16 1=0x4020ae76":            guest,  // KVM_IRQFD
	"16 1=0x4008ae6a":            guest,  // KVM_SET_GSI_ROUTING
	"16 1=0x4040ae79":            guest,  // KVM_IOEVENTFD
	"16 1&0xffffffff=0x4008af00": guest,  // VHOST_SET_FEATURES
	"16 1&0xffffffff=0x4008af03": guest,  // VHOST_SET_MEM_TABLE
	"16 1&0xffffffff=0x4008af10": guest,  // VHOST_SET_VRING_NUM
	"16 1&0xffffffff=0x4028af11": guest,  // VHOST_SET_VRING_ADDR
	"16 1&0xffffffff=0x4008af12": guest,  // VHOST_SET_VRING_BASE
	"16 1&0xffffffff=0xc008af12": guest,  // VHOST_GET_VRING_BASE
	"16 1&0xffffffff=0x4008af20": guest,  // VHOST_SET_VRING_KICK
	"16 1&0xffffffff=0x4008af21": guest,  // VHOST_SET_VRING_CALL
	"16 1&0xffffffff=0x4008af22": guest,  // VHOST_SET_VRING_ERR
	"16 1&0xffffffff=0x4008af30": guest,  // VHOST_NET_SET_BACKEND
	"16 1&0xffffffff=0x400454d0": guest,  // TUNSETOFFLOAD
	"16 1&0xffffffff=0x400454d9": guest,  // TUNSETQUEUE
	"16 1&0xffffffff=0xaf01":     guest,  // VHOST_SET_OWNER
	"16 1&0xffffffff=0x8008af00": guest,  // VHOST_GET_FEATURES
	"16 1&0xffffffff=0x400454d8": guest,  // TUNSETVNETHDRSZ
	"28 2=0x9":                   guest,  // MADV_REMOVE
	"16 1&0xffffffff=0x4004af61": guest,  // VHOST_VSOCK_SET_RUNNING
	"10 2&0x4=0x0":               guest,  // mprotect
	"28 2=0x17":                  guest,  // MADV_POPULATE_WRITE
	"77":                         guest,  // ftruncate
	"8":                          guest,  // lseek
	"16 1&0xffffffff=0x1268":     guest,  // BLKSSZGET
	"16 1&0xffffffff=0x127b":     guest,  // BLKPBSZGET
	"16 1=0x3b6e":                device, // VFIO_DEVICE_SET_IRQS
	"16 1=0x3b6f":                device, // VFIO_DEVICE_RESET
	"16 1=0x3b85":                device, // IOMMU_IOAS_MAP
	"16 1=0x3b86":                device, // IOMMU_IOAS_UNMAP
	"16 1=0x3b71":                device, // VFIO_IOMMU_MAP_DMA
	"16 1=0x3b72":                device, // VFIO_IOMMU_UNMAP_DMA
	"16 1=0x3b76":                device, // VFIO_DEVICE_BIND_IOMMUFD
	"16 1=0x3b77":                device, // VFIO_DEVICE_ATTACH_IOMMUFD_PT
	"16 1=0x3b81":                device, // IOMMU_IOAS_ALLOC
	"16 1=0x3b6b":                device, // VFIO_DEVICE_GET_INFO
	"16 1=0x3b6c":                device, // VFIO_DEVICE_GET_REGION_INFO
	"16 1=0x3b6d":                device, // VFIO_DEVICE_GET_IRQ_INFO
	"16 1=0x3b67":                device, // VFIO_GROUP_GET_STATUS
	"16 1=0x3b68":                device, // VFIO_GROUP_SET_CONTAINER
	"16 1=0x3b6a":                device, // VFIO_GROUP_GET_DEVICE_FD
	"16 1=0x3b66":                device, // VFIO_SET_IOMMU
	"16 1=0x4020ae46":            device, // KVM_SET_USER_MEMORY_REGION
	"16 1=0x4018aee1":            device, // KVM_SET_DEVICE_ATTR
	"28 2=0x10":                  device, // MADV_DONTDUMP
}

// controlSpare are the rules of control's that its tests do not show, and why they are there.
var controlSpare = map[string]string{
	"228": clock, "96": clock, "157 0=0x53564d41": names, "13": fatal, "219": resumes, "28 2=0xe": bigHeap, "28 2=0xf": bigHeap, "204 0=0x0": idle,
	"72 1=0x4":  "net, for a descriptor that blocks",
	"60":        "a goroutine that ends locked to its thread",
	"285 1=0x3": "an image with holes",
}
