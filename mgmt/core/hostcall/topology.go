package hostcall

// A Topology is what is near to what in the host. CPUs are in ascending order.
type Topology struct {
	Nodes  []Node  `json:"nodes,omitempty"`
	Cores  []Core  `json:"cores,omitempty"`
	Caches []Cache `json:"caches,omitempty"`
	// Guests is who has the CPUs.
	Guests GuestCPUs `json:"guests"`
}

// A Node is a NUMA node. Sizes in bytes.
type Node struct {
	ID        int      `json:"id"`
	CPUs      []int    `json:"cpus,omitempty"`
	Distances []int    `json:"distances,omitempty"` // to each of the nodes
	Memory    int64    `json:"memory"`
	Free      int64    `json:"free"`
	Available int64    `json:"available"` // with what the kernel could drop
	Pools     []Pool   `json:"pools,omitempty"`
	Devices   []Device `json:"devices,omitempty"`
}

// A Pool is the huge pages of one size on a Node; Page in bytes.
type Pool struct {
	Page  int64 `json:"page"`
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// A Device is a PCI device that is near to a Node.
type Device struct {
	Address string `json:"address"`
	Class   int    `json:"class"`
	Vendor  int    `json:"vendor"`
	Device  int    `json:"device"`
}

// A Core is a core with its threads; Node is -1 where it is of none.
type Core struct {
	Socket int   `json:"socket"`
	Die    int   `json:"die"`
	Core   int   `json:"core"`
	Node   int   `json:"node"`
	CPUs   []int `json:"cpus"`
}

// A Cache is caches of one kind: one for each of Shared, the CPUs that share it. So
// those of a large host fit a message.
type Cache struct {
	Level  int     `json:"level"`
	Type   string  `json:"type"`
	Bytes  int64   `json:"bytes"`
	Shared [][]int `json:"shared"`
}
