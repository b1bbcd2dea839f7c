package machine

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// problems are what a guest that runs lacks of the host.
func problems(st hostcall.GuestStatus) []string {
	var out []string
	for _, p := range []struct {
		disks protocol.DiskSet
		what  string
	}{
		{st.DisksFull, "disk %d got I/O errors, as the pool was full: delete images, guests or disks, then have the guest check its file system, or reset it"},
		{st.DisksFailed, "disk %d got I/O errors, as the host's data disk fails: look at the host's problems"},
	} {
		for n := range maxDisks {
			if p.disks.Has(n) {
				out = append(out, fmt.Sprintf(p.what, n))
			}
		}
	}
	for _, n := range st.TapsGone {
		out = append(out, fmt.Sprintf("network interface %d has lost its tap on the host: stop the guest and start it again", n))
	}
	return out
}
