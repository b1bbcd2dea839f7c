// Package layout says where things lie on a running host: paths, users and
// the descriptors a started program finds open. init makes them, core and
// control rely on them.
package layout

// Paths on the host.
const (
	// RunDir is a tmpfs of root's.
	RunDir = "/run/ashlar"
	// HostFile is a HostInfo as JSON, written by init, read by core.
	HostFile = RunDir + "/host.json"
	// CoreDir holds CoreSocket alone, so that it can be mounted into
	// control's room.
	CoreDir    = RunDir + "/core"
	CoreSocket = CoreDir + "/core.sock"
	// GuestRunDir holds a folder per running guest (core's).
	GuestRunDir = RunDir + "/guests"
	// DataDir is the data disk (XFS), or a tmpfs where there is none.
	DataDir = "/data"
	// ControlDir is control's own folder: its store.
	ControlDir = DataDir + "/control"
	ImageDir   = DataDir + "/images"
	GuestDir   = DataDir + "/guests"
	// CgroupRoot is where cgroup v2 is mounted; below it init makes
	// ControlCgroup and CoreCgroup, core makes GuestCgroup/ID.
	CgroupRoot    = "/sys/fs/cgroup"
	ControlCgroup = CgroupRoot + "/control"
	CoreCgroup    = CgroupRoot + "/core"
	GuestCgroup   = CgroupRoot + "/guests"
)

// Programs in the initramfs.
const (
	CoreBinary    = "/bin/ashlar-core"
	ControlBinary = "/bin/ashlar-control"
	VMMBinary     = "/bin/ashlar-vmm"
	NetBinary     = "/bin/ashlar-netd" // serves DHCP on guest networks
)

// CoreStop is the argument with which core stops all guests and exits.
const CoreStop = "stop"

// Users. None has a name: there is no /etc/passwd.
const (
	ControlUID    = 900 // control
	DHCPClientUID = 901 // the host's own DHCP client, a child of init
	NetUID        = 902 // netd
	NTPClientUID  = 903 // init's time client and its probe of the API
	// A running guest's VMM has uid and gid GuestUIDBase + n,
	// 0 <= n < GuestUIDCount.
	GuestUIDBase  = 100000
	GuestUIDCount = 4096
)

// Descriptors that init hands to control, besides 0 to 2 (2 goes to the kernel log).
const (
	// ControlListenFD is the listening TCP socket of the API.
	ControlListenFD = 3
	// ControlSettingsFD is a sealed memfd with ControlSettings as JSON.
	ControlSettingsFD = 4
)

// Paths in control's room, an otherwise empty root.
const (
	ControlStateDir = "/state" // ControlDir
	ControlCoreDir  = "/core"  // CoreDir: connect to /core/core.sock
)

// ControlSettings is what control needs to know to serve.
type ControlSettings struct {
	Hostname string `json:"hostname"`
	Version  string `json:"version"`
	// ClientCA is PEM: who may call. Certificate and Key are PEM: who we are.
	ClientCA    string `json:"clientCA"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// HostInfo is what init found out about the host and did for it.
type HostInfo struct {
	Hostname string `json:"hostname"`
	Version  string `json:"version"`
	// Interface is the management interface; Addresses are CIDRs.
	Interface string   `json:"interface,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Gateway   string   `json:"gateway,omitempty"`
	DNS       []string `json:"dns,omitempty"`
	APIPort   int      `json:"apiPort"`
	// DataDevice is the data disk's node, "" where DataDir is a tmpfs.
	DataDevice string `json:"dataDevice,omitempty"`
	// Problems are sentences for the operator: what did not work at boot.
	Problems []string `json:"problems,omitempty"`
	// Require are names of checks (Checks) that have to pass, or no guest is started.
	Require []string `json:"require,omitempty"`
	// Networks are the guest networks of the configuration.
	Networks []Network `json:"networks"`
	// CPUOvercommit is how many processors guests may have for each CPU that they share,
	// ReservedCPUs are those that the control domain keeps; none is the host's choice.
	CPUOvercommit int   `json:"cpuOvercommit"`
	ReservedCPUs  []int `json:"reservedCPUs,omitempty"`
}

// A Network is a guest network: a bridge of the host with NAT to the outside,
// DHCP for guests.
type Network struct {
	Name   string `json:"name"`
	Subnet string `json:"subnet"` // CIDR; the host has its first address
	// MTU in bytes; 0 for 1500.
	MTU int `json:"mtu,omitempty"`
}
