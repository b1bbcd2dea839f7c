package jailtest

// A use is what shows that a rule is used, or why it is there though no test shows it.
type use struct {
	by  Tests
	why string
}

// Reasons for rules that are used where no test can wait for it.
const (
	clock   = "the runtime, on machines whose clock cannot be read in user space"
	names   = "the runtime, on kernels with names for memory areas (CONFIG_ANON_VMA_NAME)"
	fatal   = "the runtime's way to die of a signal"
	resumes = "made by the kernel, when a thread goes on that was stopped while it slept"
	bigHeap = "the runtime, with a larger heap than tests come to"
	idle    = "the runtime looks again every 30 s, where nobody has set GOMAXPROCS"
)

// elsewhere are the rules of a VMM, by jail.Rule.String, that Processes do not show.
var elsewhere = map[string]use{
	"228":              {why: clock}, // clock_gettime
	"96":               {why: clock}, // gettimeofday
	"157 0=0x53564d41": {why: names},
	"13":               {why: fatal}, // rt_sigaction
	"219":              {why: resumes},
	"28 2=0xe":         {why: bigHeap},
	"28 2=0xf":         {why: bigHeap},
	"204 0=0x0":        {why: idle},
}

// controlSpare are the rules of control's that its tests do not show, and why they are there.
var controlSpare = map[string]string{
	"228": clock, "96": clock, "157 0=0x53564d41": names, "13": fatal, "219": resumes, "28 2=0xe": bigHeap, "28 2=0xf": bigHeap, "204 0=0x0": idle,
	"290":                      "the network poller's wake-up, at its first use",
	"72 1=0x4":                 "net, for a descriptor that blocks",
	"60":                       "a goroutine that ends locked to its thread",
	"53 0=0x1 1=0x80801 2=0x0": "of all who exchange messages; only a VMM hands connections out",
	"54 1=0x1 2=0x6":           "net's defaults, for other sockets than core's",
	"285 1=0x3":                "an image with holes",
}
