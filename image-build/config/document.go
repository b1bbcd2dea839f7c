// Package config reads and writes the host's configuration document: one YAML
// file, ashlar.yaml, on the image's configuration partition. init reads it at
// boot; ashlarctl writes it and checks it before it goes onto an image.
//
// The document is strict: unknown fields, wrong types and values that make no
// sense are errors, each with its line, column and field path, and all of them
// are reported at once. YAML is the 1.2 core schema as go.yaml.in/yaml reads it,
// without anchors, aliases, merge keys, custom tags and several documents in one.
//
// A full example is in testdata/example.yaml, which a test reads.
package config

// Names that the image builder, ashlarctl and init agree on.
const (
	// FileName is the document's name in the root of the configuration partition.
	FileName = "ashlar.yaml"
	// PartitionLabel is the GPT name of the configuration partition and the
	// volume label of the FAT file system in it.
	PartitionLabel = "ASHLAR-CFG"
	// Version is the only value of the version field understood today.
	Version = 1
	// MaxSize is the largest document in bytes.
	MaxSize = 64 << 10
)

// Limits of the document's values.
const (
	DefaultPort      = 8443
	MaxDNS           = 3 // as many as resolv.conf takes
	MaxNTP           = 8
	MaxDisks         = 16
	MaxGuestNetworks = 64
	MaxRequire       = 64
	// MinMTU is what every link that carries IPv6 must have (RFC 8200 section 5),
	// MaxMTU what jumbo frames have by custom.
	MinMTU = 1280
	MaxMTU = 9000
	// DefaultOvercommit and MaxOvercommit are processors for each CPU that guests share.
	DefaultOvercommit = 16
	MaxOvercommit     = 128
	MaxReservedCPUs   = 128
	MaxCPU            = 1023 // the highest number of one
)

// Document is a host's configuration.
type Document struct {
	// Version is the version of this format: 1. Required.
	Version int `yaml:"version"`
	// Hostname is an RFC 1123 host name of up to 63 bytes. Default "ashlar".
	Hostname string `yaml:"hostname"`
	// Network is the host's own management network.
	Network Network `yaml:"network"`
	// API is where the host is managed and who may do so. Required.
	API API `yaml:"api"`
	// Disks say which disk holds guests, images and the host's state. Each
	// entry is tried in turn; the first one that matches a disk that is there
	// is used. With none the host keeps its data in memory and loses it when it
	// is switched off.
	Disks []Disk `yaml:"disks"`
	// GuestNetworks are the networks that guests can be attached to. Up to 64;
	// when the field is left out there is one, default, 10.88.0.0/24.
	GuestNetworks []GuestNetwork `yaml:"guestNetworks"`
	// NTP says where the host takes the time from.
	NTP NTP `yaml:"ntp,omitempty"`
	// GuestCPUs says what of the host's CPUs guests get.
	GuestCPUs GuestCPUs `yaml:"guestCPUs,omitempty"`
	// Security says what the host must be, to start guests.
	Security Security `yaml:"security,omitempty"`
}

// Security is the policy of the host.
type Security struct {
	// Require are the names of checks (`ashlarctl host check`) that must have passed, or the
	// host starts no guests: vulnerabilities, smt, core-scheduling, microcode, iommu,
	// interrupt-remapping, secure-boot, lockdown, kernel-command-line, ksm, swap, aslr;
	// vulnerabilities/spectre_v2 is one of those of the processor. Default none.
	Require []string `yaml:"require,omitempty"`
}

// Network is the host's own network. Exactly one of DHCP and Static is set;
// when both are left out it is DHCP.
type Network struct {
	// Interface is "auto" (the first Ethernet interface with a carrier), an
	// interface's name (1 to 15 bytes) or its MAC address (aa:bb:cc:dd:ee:ff).
	// Default "auto".
	Interface string `yaml:"interface"`
	// DHCP asks for addresses by DHCP.
	DHCP bool `yaml:"dhcp,omitempty"`
	// Static gives the addresses by hand.
	Static *Static `yaml:"static,omitempty"`
}

// Static is a fixed network set-up.
type Static struct {
	// Address is the host's address with the length of its prefix,
	// "192.0.2.10/24" or "2001:db8::10/64". Required.
	Address string `yaml:"address"`
	// Gateway is the default router, an address within the prefix or an IPv6
	// link-local one. Optional: without it the host reaches its own network only.
	Gateway string `yaml:"gateway,omitempty"`
	// DNS are up to 3 resolvers' addresses.
	DNS []string `yaml:"dns,omitempty"`
}

// API is the management port and its TLS identity.
type API struct {
	// Port is the TCP port, 1 to 65535. Default 8443.
	Port int `yaml:"port"`
	// CA is the operator's CA certificate, PEM; several during a change of CA.
	// Who shows a client certificate issued by it may manage the host. Required.
	CA string `yaml:"ca"`
	// Certificate is the host's own certificate, PEM, issued by the CA; the
	// certificates of intermediate CAs may follow it. Required.
	Certificate string `yaml:"certificate"`
	// Key is the private key of Certificate, PEM (PKCS #8, SEC 1 or PKCS #1),
	// not encrypted. Required.
	Key string `yaml:"key"`
}

// Disk names a disk by exactly one of Serial, Path, Model and Any. The disk the
// host booted from is never used.
type Disk struct {
	// Serial is the disk's serial number, as in `lsblk -o SERIAL`.
	Serial string `yaml:"serial,omitempty"`
	// Path is a device node below /dev.
	Path string `yaml:"path,omitempty"`
	// Model is the disk's model, as in `lsblk -o MODEL`.
	Model string `yaml:"model,omitempty"`
	// Any takes the first disk found, if true.
	Any bool `yaml:"any,omitempty"`
	// Erase lets the host format a disk that holds something else. Without it,
	// only a blank disk is formatted, and one formatted by Ashlar is used.
	// Default false.
	Erase bool `yaml:"erase"`
}

// GuestNetwork is a network of guests behind the host's NAT.
type GuestNetwork struct {
	// Name is 1 to 11 bytes, lower-case letters, digits and "-", a letter
	// first; it must be unique. Required.
	Name string `yaml:"name"`
	// Subnet is an IPv4 prefix of 8 to 29 bits, "10.88.0.0/24"; the host has
	// its first address. Subnets must not overlap. Required.
	Subnet string `yaml:"subnet"`
	// MTU is the size of the largest IP packet on the network in bytes, 1280 to
	// 9000; guests are told. Default 1500. It need not be that of the uplink: the
	// host fragments, or answers that fragmentation is needed (RFC 1191).
	MTU int `yaml:"mtu,omitempty"`
}

// GuestCPUs is what of the host's CPUs guests get. Memory has no such limit to set: what
// guests that run may use together is never more than the host has.
type GuestCPUs struct {
	// Overcommit is how many processors guests that run may have for each CPU that they
	// share, 1 to 128; a guest is not started beyond that. Default 16.
	Overcommit int `yaml:"overcommit"`
	// Reserved are up to 128 CPUs that the control domain keeps for itself with the rest of
	// their cores, 0 to 1023. Without any it keeps the core of the first CPU; where the host
	// has less than 4 cores, guests may use that too, but not for themselves alone.
	Reserved []int `yaml:"reserved,omitempty"`
}

// NTP is where the time comes from.
type NTP struct {
	// Servers are up to 8 host names or addresses, tried in order. With none
	// the host uses those that DHCP names, and its hardware clock otherwise.
	Servers []string `yaml:"servers,omitempty"`
}

// Default is the document that an operator starts from: everything but the TLS
// identity, which Parse requires.
func Default() *Document {
	return &Document{
		Version:       Version,
		Hostname:      "ashlar",
		Network:       Network{Interface: "auto", DHCP: true},
		API:           API{Port: DefaultPort},
		Disks:         []Disk{{Any: true}},
		GuestNetworks: defaultGuestNetworks(),
		GuestCPUs:     GuestCPUs{Overcommit: DefaultOvercommit},
	}
}

func defaultGuestNetworks() []GuestNetwork {
	return []GuestNetwork{{Name: "default", Subnet: "10.88.0.0/24"}}
}
