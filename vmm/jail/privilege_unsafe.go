package jail

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setCapabilities makes set the effective and permitted set of every thread,
// and empties the inheritable one.
//
// The pointers are sound: header and data outlive the call (KeepAlive), are
// not moved (the Go heap does not move), and have the layout of the kernel's
// __user_cap_header_struct and __user_cap_data_struct (x/sys mirrors them).
func setCapabilities(set uint64) error {
	var (
		header = &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data   = &[2]unix.CapUserData{}
	)
	for i := range data {
		word := uint32(set >> (32 * i))
		data[i].Effective, data[i].Permitted = word, word
	}
	err := allThreads("set capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	return err
}
