package protocol

import (
	"fmt"
	"slices"
	"strings"
)

// ConnectPort brings PortName and asks for a connected stream socket to that serial port
// of a guest that runs or is paused; the Response brings it. What the guest writes to the
// port comes out of it, nothing is lost while it is open, and the guest waits for a slow
// reader. What is written to it the guest reads. The guest is told when it is closed; it
// ends when the guest closes the port, is reset or stops. FailedPrecondition where no
// program in the guest has the port open, ResourceExhausted where there is a connection
// already, InvalidArgument where there is no such port.
const ConnectPort Method = "connect-port"

const (
	// MaxPorts bounds Spec.Ports: with the console there are 8.
	MaxPorts = 7
	// MaxPortName bounds the name of a port.
	MaxPortName = 64
)

// A Port is a serial port by a name: /dev/virtio-ports/NAME in Linux.
type Port struct {
	Name string `json:"name"`
}

// PortNames are the names of ports.
func PortNames(ports []Port) []string {
	var names []string
	for _, p := range ports {
		names = append(names, p.Name)
	}
	return names
}

// CheckPorts says what is wrong with ports of these names, and at which place: -1 is their
// number.
func CheckPorts(names []string) (place int, wrong string) {
	if len(names) > MaxPorts {
		return -1, fmt.Sprintf("has %d: at most %d", len(names), MaxPorts)
	}
	for i, name := range names {
		switch {
		case !ValidPortName(name):
			return i, fmt.Sprintf("is %.80q: write 1 to %d lower-case letters, digits, ., _ and -", name, MaxPortName)
		case slices.Contains(names[:i], name):
			return i, fmt.Sprintf("is %q, which stands there twice", name)
		}
	}
	return 0, ""
}

// ValidPortName tells whether a port can be called s: it becomes the name of a file in
// the guest.
func ValidPortName(s string) bool {
	return s != "" && len(s) <= MaxPortName && s != "." && s != ".." && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}
