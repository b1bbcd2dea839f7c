package vhost

import "fmt"

// SetGuestCID gives a vhost-vsock its guest's CID, once: a jailed process cannot change
// it (Rules). It is EADDRINUSE where another guest has it.
func (d *Device) SetGuestCID(cid uint64) error {
	if err := ioctl(d.f, vsockSetGuestCID, &cid); err != nil {
		return fmt.Errorf("VHOST_VSOCK_SET_GUEST_CID %d: %w", cid, err)
	}
	return nil
}

// SetRunning starts a vhost-vsock on its two queues, or stops it: when that returns
// nothing of them is under way.
func (d *Device) SetRunning(on bool) error {
	var v int32
	if on {
		v = 1
	}
	if err := ioctl(d.f, vsockSetRunning, &v); err != nil {
		return fmt.Errorf("VHOST_VSOCK_SET_RUNNING %d: %w", v, err)
	}
	return nil
}
