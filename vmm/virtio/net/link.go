package net

// SetLink tells the guest whether the link is up (VIRTIO_NET_F_STATUS, section 5.1.4),
// now or when its driver looks. It is for the host to see that no packet passes a link
// that is down. It may be called at any time.
func (d *Device) SetLink(up bool) {
	if d.linkDown.Swap(!up) == !up {
		return
	}
	if changed := d.changed.Load(); changed != nil {
		(*changed)()
	}
}

// status is the field of the configuration.
func (d *Device) status() uint16 {
	if d.linkDown.Load() {
		return 0
	}
	return statusLinkUp
}
