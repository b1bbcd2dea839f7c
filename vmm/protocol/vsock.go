package protocol

// A Vsock is a virtio socket device: programs of the host reach those of the guest by
// its CID (AF_VSOCK).
type Vsock struct {
	// Vhost is /dev/vhost-vsock, newly opened.
	Vhost File `json:"vhost"`
	// CID is the guest's: from MinCID to MaxCID, and of no other guest of the host.
	CID uint32 `json:"cid"`
}

// Bounds of Vsock.CID (VIRTIO 1.2 section 5.10.4).
const (
	MinCID = 3
	MaxCID = 1<<32 - 2
)
