package render

import (
	"fmt"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// vsock is what is known of a socket device.
func vsock(v *ashlarv1.Vsock) string {
	if v.GetCid() == 0 {
		return "yes"
	}
	return fmt.Sprintf("CID %d", v.GetCid())
}
