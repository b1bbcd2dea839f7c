package jailtest

// Reasons for rules that are used where no test can wait for it.
const (
	clock   = "the runtime, on machines whose clock cannot be read in user space"
	names   = "the runtime, on kernels with names for memory areas (CONFIG_ANON_VMA_NAME)"
	fatal   = "the runtime's way to die of a signal"
	resumes = "made by the kernel, when a thread goes on that was stopped while it slept"
	bigHeap = "the runtime, with a larger heap than tests come to"
	// A guest's drivers have its VMM make these calls: Guests show it.
	guest    = "a guest's drivers"
	plugged  = "a network interface that is plugged in: TestHotplug of vmm/virtio/internal/guesttest fails without it"
	balloon  = "a guest gives memory back: TestBalloon fails without it"
	sockets  = "a guest's socket device: TestVsock fails without it"
	memory   = "memory that comes and goes: TestHotplugMemory fails without it"
	logs     = "a console log that has become too long"
	blockdev = "a disk on a block device that is plugged in"
	idle     = "the runtime looks again every 30 s, where nobody has set GOMAXPROCS"
)

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
	"426":                        guest,    // io_uring_enter
	"16 1=0xae03":                guest,    // KVM_CHECK_EXTENSION
	"16 1=0x4020ae76":            guest,    // KVM_IRQFD
	"16 1=0x4008ae6a":            guest,    // KVM_SET_GSI_ROUTING
	"16 1=0x4040ae79":            guest,    // KVM_IOEVENTFD
	"16 1&0xffffffff=0x4008af00": guest,    // VHOST_SET_FEATURES
	"16 1&0xffffffff=0x4008af03": guest,    // VHOST_SET_MEM_TABLE
	"16 1&0xffffffff=0x4008af10": guest,    // VHOST_SET_VRING_NUM
	"16 1&0xffffffff=0x4028af11": guest,    // VHOST_SET_VRING_ADDR
	"16 1&0xffffffff=0x4008af12": guest,    // VHOST_SET_VRING_BASE
	"16 1&0xffffffff=0xc008af12": guest,    // VHOST_GET_VRING_BASE
	"16 1&0xffffffff=0x4008af20": guest,    // VHOST_SET_VRING_KICK
	"16 1&0xffffffff=0x4008af21": guest,    // VHOST_SET_VRING_CALL
	"16 1&0xffffffff=0x4008af22": guest,    // VHOST_SET_VRING_ERR
	"16 1&0xffffffff=0x4008af30": guest,    // VHOST_NET_SET_BACKEND
	"16 1&0xffffffff=0x400454d0": guest,    // TUNSETOFFLOAD
	"16 1&0xffffffff=0x400454d9": guest,    // TUNSETQUEUE
	"16 1&0xffffffff=0xaf01":     plugged,  // VHOST_SET_OWNER
	"16 1&0xffffffff=0x8008af00": plugged,  // VHOST_GET_FEATURES
	"16 1&0xffffffff=0x400454d8": plugged,  // TUNSETVNETHDRSZ
	"28 2=0x9":                   balloon,  // MADV_REMOVE
	"16 1&0xffffffff=0x4004af61": sockets,  // VHOST_VSOCK_SET_RUNNING
	"10 2&0x4=0x0":               memory,   // mprotect
	"28 2=0x17":                  memory,   // MADV_POPULATE_WRITE
	"77":                         logs,     // ftruncate
	"8":                          blockdev, // lseek
	"16 1&0xffffffff=0x1268":     blockdev, // BLKSSZGET
	"16 1&0xffffffff=0x127b":     blockdev, // BLKPBSZGET
}

// controlSpare are the rules of control's that its tests do not show, and why they are there.
var controlSpare = map[string]string{
	"228": clock, "96": clock, "157 0=0x53564d41": names, "13": fatal, "219": resumes, "28 2=0xe": bigHeap, "28 2=0xf": bigHeap, "204 0=0x0": idle,
	"72 1=0x4":  "net, for a descriptor that blocks",
	"60":        "a goroutine that ends locked to its thread",
	"285 1=0x3": "an image with holes",
}
