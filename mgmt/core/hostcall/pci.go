package hostcall

// A PCIDevice is a PCI function of the host, as drivers/pci has it.
type PCIDevice struct {
	Address         string   `json:"address"`
	Names           []string `json:"names,omitempty"` // that stay when others come or go
	Parent          string   `json:"parent,omitempty"`
	Vendor          int      `json:"vendor"`
	Device          int      `json:"device"`
	SubsystemVendor int      `json:"subsystemVendor,omitempty"`
	SubsystemDevice int      `json:"subsystemDevice,omitempty"`
	Class           int      `json:"class"`
	Revision        int      `json:"revision,omitempty"`
	Driver          string   `json:"driver,omitempty"`
	Node            int      `json:"node"`  // -1 where it is unknown
	Group           int      `json:"group"` // IOMMU group; -1 where there is no IOMMU
	ResetMethods    []string `json:"resetMethods,omitempty"`
	// TotalVFs is how many virtual functions it may have, VFs how many it has.
	TotalVFs int `json:"totalVfs,omitempty"`
	VFs      int `json:"vfs,omitempty"`
	// Physical is the physical function of a virtual one, and VF its place among those.
	Physical string   `json:"physical,omitempty"`
	VF       int      `json:"vf,omitempty"`
	BARs     []PCIBAR `json:"bars,omitempty"`
	Link     *PCILink `json:"link,omitempty"`
	// Extended is whether all of its configuration space could be read: else NoACS and
	// SerialNumber are unknown.
	Extended     bool     `json:"extended,omitempty"`
	NoACS        []string `json:"noAcs,omitempty"`
	SerialNumber string   `json:"serialNumber,omitempty"`
	Interfaces   []PCINIC `json:"interfaces,omitempty"`
	NVMe         string   `json:"nvme,omitempty"`
	Uses         []string `json:"uses,omitempty"`  // drivers/pci.Use
	Owner        string   `json:"owner,omitempty"` // ID of the guest that has it
}

// A PCIBAR is a window into a PCIDevice.
type PCIBAR struct {
	Index  int   `json:"index"`
	Bytes  int64 `json:"bytes"`
	IO     bool  `json:"io,omitempty"`
	Wide   bool  `json:"wide,omitempty"`
	Cached bool  `json:"cached,omitempty"`
}

// A PCILink is how a PCIDevice is connected, in million transfers a second and lanes; 0 is
// unknown.
type PCILink struct {
	Speed    int `json:"speed,omitempty"`
	Width    int `json:"width,omitempty"`
	MaxSpeed int `json:"maxSpeed,omitempty"`
	MaxWidth int `json:"maxWidth,omitempty"`
}

// A PCINIC is a network interface of the host on a PCIDevice.
type PCINIC struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"` // its own
}

// PCIList reads After and fills PCI: devices in the order of their addresses, from the
// one behind After on, as many as fit a message, and More where others follow.
const PCIList Method = "pci-list"

// A PCIPage answers PCIList.
type PCIPage struct {
	Devices []PCIDevice `json:"devices,omitempty"`
	More    bool        `json:"more,omitempty"`
}
