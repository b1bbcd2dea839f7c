package protocol

// Methods that change what is plugged in while the guest runs.
const (
	// AttachDisk brings NewDisk, AttachNIC NewNIC: their descriptors come beside the
	// message. The device is in a hot-plug slot when the response comes; the guest may
	// take a moment to see it. FailedPrecondition where all slots are taken.
	AttachDisk Method = "attach-disk"
	AttachNIC  Method = "attach-nic"
	// Detach asks the guest to give Device up (`disk3`, `nic1`), or with Force takes it away.
	// The response comes at once; the device is gone, and its descriptors are closed,
	// when Status.Devices lacks it.
	Detach Method = "detach"
)

// MaxHotplugSlots bounds Spec.HotplugSlots.
const MaxHotplugSlots = 8

// A PluggedDevice is one of Status.Devices.
type PluggedDevice struct {
	// Name is `disk`, `nic` or `vfio` and the Number.
	Name string `json:"name"`
	// Slot is the number of its hot-plug slot, from 1 on; 0 is one that was there at the start
	// and cannot be taken away.
	Slot int `json:"slot,omitempty"`
	// Detaching says that the guest was asked to give it up.
	Detaching bool `json:"detaching,omitempty"`
	// Address is where a device of the host's is there.
	Address string `json:"address,omitempty"`
}
