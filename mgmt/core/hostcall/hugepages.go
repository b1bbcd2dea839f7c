package hostcall

// Calls about the host's pools of huge pages.
const (
	// HugepagesList fills Hugepages.
	HugepagesList Method = "hugepages-list"
	// HugepagesSet reads HugepageSize and makes a pool that large, as a whole or not at
	// all: it fails with ResourceExhausted where the host does not have the memory, with
	// FailedPrecondition where too many pages are in use or promised. It fills Hugepages
	// with that pool.
	HugepagesSet Method = "hugepages-set"
)

// A HugepagePool is the huge pages of one size.
type HugepagePool struct {
	Page  int64 `json:"page"` // bytes
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
	// Reserved are those of the free ones that guests have been promised, Surplus those
	// of all that go when they are free.
	Reserved int64          `json:"reserved,omitempty"`
	Surplus  int64          `json:"surplus,omitempty"`
	Nodes    []HugepageNode `json:"nodes,omitempty"`
}

// A HugepageNode is what a HugepagePool has on a NUMA node.
type HugepageNode struct {
	ID      int   `json:"id"`
	Total   int64 `json:"total"`
	Free    int64 `json:"free"`
	Surplus int64 `json:"surplus,omitempty"`
}

// Kept is how many pages stay when they are free.
func (n HugepageNode) Kept() int64 { return n.Total - n.Surplus }

// A HugepageSize is how large a pool is to be.
type HugepageSize struct {
	Page  int64 `json:"page"` // bytes
	Pages int64 `json:"pages"`
	// Node is the NUMA node that they are to be on; nil spreads them evenly over all.
	Node *int `json:"node,omitempty"`
	// AtMost makes it take what can be had, up to Pages, and give none back: after a
	// boot, where less is better than nothing.
	AtMost bool `json:"atMost,omitempty"`
}
