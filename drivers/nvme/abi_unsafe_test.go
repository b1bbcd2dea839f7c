package nvme

import (
	"testing"
	"unsafe" // for sizes and offsets alone
)

// The numbers and sizes are those of linux/nvme_ioctl.h.
func TestCommandLayout(t *testing.T) {
	var c command
	for name, got := range map[string][2]uintptr{
		"size": {unsafe.Sizeof(c), 72}, "nsid": {unsafe.Offsetof(c.nsid), 4}, "addr": {unsafe.Offsetof(c.addr), 24},
		"data_len": {unsafe.Offsetof(c.dataLen), 36}, "cdw10": {unsafe.Offsetof(c.cdw10), 40}, "cdw11": {unsafe.Offsetof(c.cdw11), 44},
		"timeout_ms": {unsafe.Offsetof(c.timeoutMsec), 64}, "result": {unsafe.Offsetof(c.result), 68},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %d, want %d", name, got[0], got[1])
		}
	}
	if ioctlAdmin != 0xc0484e41 || ioctlReset != 0x4e44 {
		t.Errorf("ioctls %#x, %#x", ioctlAdmin, ioctlReset)
	}
}
