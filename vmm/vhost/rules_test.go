package vhost

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A process that its guest has taken over must not take the CID of another guest, nor
// give its device to somebody else.
func TestRules(t *testing.T) {
	for _, r := range Rules() {
		if r.Syscall != unix.SYS_IOCTL || len(r.Args) != 1 || r.Args[0].Index != 1 {
			t.Errorf("a rule is not for one ioctl: %+v", r)
			continue
		}
		for name, n := range map[string]uint64{
			"VHOST_SET_OWNER": setOwner, "VHOST_RESET_OWNER": vhostType<<8 | 0x02, "VHOST_VSOCK_SET_GUEST_CID": vsockSetGuestCID,
		} {
			if n&r.Args[0].Mask == r.Args[0].Value {
				t.Errorf("%s is allowed", name)
			}
		}
	}
}
