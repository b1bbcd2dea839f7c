package hostcall

import "github.com/ashlar-hv/ashlar/vmm/protocol"

// GuestPlacement reads ID and fills Placed, of a guest that runs or is paused.
const GuestPlacement Method = "guest-placement"

// A Placement is where a guest is to be on the host. CPUs and nodes are the host's.
type Placement struct {
	// Auto has core choose a node for all of the guest, or one for each of Guest.NUMA that
	// names none; Node names the one for all of it. At most one of the two; with Guest.NUMA
	// not Node.
	Auto bool `json:"auto,omitempty"`
	Node *int `json:"node,omitempty"`
	// Pin gives each processor a CPU of its own; CPUs names them, in the order of all
	// processors that there may come to be.
	Pin  bool  `json:"pin,omitempty"`
	CPUs []int `json:"cpus,omitempty"`
	// ExclusiveCores pins, too, and keeps all else away from the cores of these CPUs.
	ExclusiveCores bool `json:"exclusiveCores,omitempty"`
}

// Placed is where a guest is, for as long as it runs.
type Placed struct {
	// VCPUs is how many processors it can come to have.
	VCPUs int `json:"vcpus"`
	// Nodes are those that all of its memory is of; none where it is of any, or where it
	// is shared out to HostNodes.
	Nodes []int `json:"nodes,omitempty"`
	// HostNodes are the nodes of each node that the guest is told of.
	HostNodes [][]int `json:"hostNodes,omitempty"`
	// Affinity is where processors run; those that are missing run on any CPU for guests.
	Affinity []protocol.Affinity `json:"affinity,omitempty"`
	// Emulation are the CPUs of all its other threads; none: any for guests.
	Emulation []int `json:"emulation,omitempty"`
	// Pinned is whether each processor has a CPU of its own, Exclusive the CPUs that nobody
	// else runs on: whole cores.
	Pinned    bool  `json:"pinned,omitempty"`
	Exclusive []int `json:"exclusive,omitempty"`
	// Why is a sentence or two about how it came to that.
	Why string `json:"why"`
}

// GuestCPUs is who has the host's CPUs.
type GuestCPUs struct {
	// Reserved are the control domain's, Shared those that guests share, Exclusive those that
	// are one's alone.
	Reserved  []int `json:"reserved,omitempty"`
	Shared    []int `json:"shared,omitempty"`
	Exclusive []int `json:"exclusive,omitempty"`
	// VCPUs is how many processors guests have on the shared ones, Most how many they may have.
	VCPUs int `json:"vcpus"`
	Most  int `json:"most"`
}
