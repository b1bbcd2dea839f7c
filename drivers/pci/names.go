package pci

import (
	"fmt"
	"strings"
)

// Names are names of the device that stay when others come or go, with the kind before a
// dash: `path-` where it is plugged in, `dsn-` the serial number that its configuration
// space has, with the function; and while the host's driver has it, `mac-` the address of
// a NIC's port and `nvme-` the serial number of a disk. Different devices may have
// the same: makers do not always tell them apart.
func (d *Device) Names() []string {
	out := []string{"path-" + d.Path}
	if d.SerialNumber != "" && d.Physical == nil {
		out = append(out, fmt.Sprintf("dsn-%s.%s", d.SerialNumber, d.Address[len(d.Address)-1:]))
	}
	for _, i := range d.Interfaces {
		if i.MAC != "" {
			out = append(out, "mac-"+strings.ReplaceAll(i.MAC, ":", ""))
		}
	}
	if d.NVMe != "" {
		out = append(out, "nvme-"+strings.Map(plain, d.NVMe))
	}
	return out
}

// plain is a character that may be in a name.
func plain(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
		return r
	}
	return '_'
}
