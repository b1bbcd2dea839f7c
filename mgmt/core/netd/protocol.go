// Package netd answers guests that ask for their address, and no more: a DHCP
// server (RFC 2131, RFC 2132) with one fixed address per MAC, in a process
// without privilege.
//
// core gives it a socket per network and tells it who gets what (Order); it
// tells core what was taken (Lease). It keeps nothing: started anew, it is
// told all again.
package netd

// ConnFD is the descriptor on which netd finds its vmm/seqpacket connection to core.
const ConnFD = 3

// LeaseSeconds is how long a guest may use its address before it asks again.
const LeaseSeconds = 3600

// An Order is what core sends. The first brings Networks, with one UDP socket
// beside the message for each; the others bring one of Add and Remove.
type Order struct {
	Networks []Network `json:"networks,omitempty"`
	Add      *Host     `json:"add,omitempty"`
	Remove   *Host     `json:"remove,omitempty"`
}

// A Network is what guests on it are told.
type Network struct {
	Subnet  string   `json:"subnet"`  // CIDR
	Gateway string   `json:"gateway"` // the host's own address
	DNS     []string `json:"dns,omitempty"`
	MTU     uint16   `json:"mtu,omitempty"` // 0 says nothing
}

// A Host is a NIC and its address on the network of this place in Networks.
type Host struct {
	Network int    `json:"network"`
	MAC     string `json:"mac"`
	Address string `json:"address"`
}

// A Lease tells core that a guest has taken its address.
type Lease struct {
	Network int    `json:"network"`
	MAC     string `json:"mac"`
	Address string `json:"address"`
}
