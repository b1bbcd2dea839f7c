package vhost

import (
	"testing"
	"unsafe"
)

// TestABI checks the mirrored structs and numbers against linux/vhost.h and
// linux/vhost_types.h.
func TestABI(t *testing.T) {
	var (
		a vringAddr
		m memoryTable
	)
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof vringState", unsafe.Sizeof(vringState{}), sizeState},
		{"sizeof vringFile", unsafe.Sizeof(vringFile{}), sizeFile},
		{"sizeof vringAddr", unsafe.Sizeof(a), sizeAddr},
		{"vringAddr.desc", unsafe.Offsetof(a.desc), 8},
		{"vringAddr.used", unsafe.Offsetof(a.used), 16},
		{"vringAddr.avail", unsafe.Offsetof(a.avail), 24},
		{"sizeof memoryRegion", unsafe.Sizeof(memoryRegion{}), 32},
		{"memoryTable.regions", unsafe.Offsetof(m.regions), sizeMemHeader},
		{"VHOST_SET_OWNER", setOwner, 0xaf01},
		{"VHOST_GET_FEATURES", getFeatures, 0x8008af00},
		{"VHOST_SET_FEATURES", setFeatures, 0x4008af00},
		{"VHOST_SET_MEM_TABLE", setMemTable, 0x4008af03},
		{"VHOST_SET_VRING_NUM", setVringNum, 0x4008af10},
		{"VHOST_SET_VRING_ADDR", setVringAddr, 0x4028af11},
		{"VHOST_SET_VRING_BASE", setVringBase, 0x4008af12},
		{"VHOST_GET_VRING_BASE", getVringBase, 0xc008af12},
		{"VHOST_SET_VRING_KICK", setVringKick, 0x4008af20},
		{"VHOST_SET_VRING_CALL", setVringCall, 0x4008af21},
		{"VHOST_SET_VRING_ERR", setVringErr, 0x4008af22},
		{"VHOST_NET_SET_BACKEND", netSetBackend, 0x4008af30},
		{"VHOST_VSOCK_SET_GUEST_CID", vsockSetGuestCID, 0x4008af60},
		{"VHOST_VSOCK_SET_RUNNING", vsockSetRunning, 0x4004af61},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}
