package store

// Functions are the virtual functions that a device is to have. There is none for a device
// that is to have none.
type Functions struct {
	// Device is the name that says where it is plugged in.
	Device string `json:"device"`
	Count  int    `json:"count"`
	// Namespaces are those of each, of an NVMe controller; nil where that was left to it.
	Namespaces [][]int `json:"namespaces,omitempty"`
}

// VFs is the table of them, by device.
var VFs = Table[Functions]{[]byte("functions"), func(f Functions) string { return f.Device }}
