// Package net is the virtio network device (VIRTIO 1.2 section 5.1) on a tap of
// the host, with one pair of queues.
//
// Packets go from queue to tap in the kernel where there is a vhost-net
// descriptor, and else through two goroutines of this package. Offloads are the
// tap's: it takes and gives the same struct virtio_net_hdr as the driver.
package net

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

const (
	queueSize = 256

	receiveQueue  = 0
	transmitQueue = 1
	pair          = 2 // queues of one pair

	headerSize = 12 // struct virtio_net_hdr with num_buffers
)

// Feature bits (section 5.1.3).
const (
	featCsum      virtio.Features = 1 << 0
	featGuestCsum virtio.Features = 1 << 1
	featMTU       virtio.Features = 1 << 3
	featMAC       virtio.Features = 1 << 5
	featGuestTSO4 virtio.Features = 1 << 7
	featGuestTSO6 virtio.Features = 1 << 8
	featGuestECN  virtio.Features = 1 << 9
	featHostTSO4  virtio.Features = 1 << 11
	featHostTSO6  virtio.Features = 1 << 12
	featHostECN   virtio.Features = 1 << 13
	featMrgRxbuf  virtio.Features = 1 << 15
	featStatus    virtio.Features = 1 << 16
)

const (
	// MinMTU and MaxMTU bound Config.MTU (section 5.1.4.1).
	MinMTU = 68
	MaxMTU = 65535
)

// ErrConfig says that a Config is out of range.
var ErrConfig = errors.New("bad network configuration")

// A Config is what a network device is made of.
type Config struct {
	// Tap is /dev/net/tun attached to an interface with IFF_TAP, IFF_NO_PI and
	// IFF_VNET_HDR. The Device owns it.
	Tap *os.File
	// Vhost is /dev/vhost-net newly opened, or nil. The Device owns it.
	Vhost *os.File
	// MAC is the guest's address: unicast, 6 bytes.
	MAC net.HardwareAddr
	// MTU is told to the guest; 0 says nothing.
	MTU uint16
}

// A dataPath moves packets between the queues and the tap.
type dataPath interface {
	// queues are the kick files' specs.
	queues() []virtio.QueueSpec
	// ring are the queue features that it knows.
	ring() virtio.Features
	// kickCount is how often kicks have woken it.
	kickCount() uint64
	start(virtio.Activation) error
	stop()
	close() error
}

// A Device is one network interface of the guest.
type Device struct {
	c       Config
	path    dataPath
	offload func(virtio.Features) error // tells the tap what the driver takes
	metrics Metrics
}

// New makes a network device.
func New(c Config) (*Device, error) {
	if c.Tap == nil {
		return nil, fmt.Errorf("network device without a tap: %w", ErrConfig)
	}
	if len(c.MAC) != 6 || c.MAC[0]&1 != 0 || c.MTU != 0 && c.MTU < MinMTU {
		return nil, fmt.Errorf("network device with MAC %q (want 6 bytes, unicast), MTU %d (want 0 or %d to %d): %w",
			c.MAC, c.MTU, MinMTU, MaxMTU, ErrConfig)
	}
	if err := prepareTap(c.Tap); err != nil {
		return nil, fmt.Errorf("network device: %w", err)
	}
	d := &Device{c: c, offload: func(f virtio.Features) error { return setOffloads(c.Tap, f) }}
	var err error
	if c.Vhost != nil {
		var v *vhost.Device
		if v, err = vhost.New(c.Vhost); err == nil {
			d.path, err = newKernelPath(d, v)
		}
	} else {
		d.path, err = newUserPath(d)
	}
	if err != nil {
		return nil, fmt.Errorf("network device: %w", err)
	}
	return d, nil
}

// ID is virtio.IDNet.
func (d *Device) ID() virtio.ID { return virtio.IDNet }

// Features returns what the device offers.
func (d *Device) Features() virtio.Features {
	f := featCsum | featGuestCsum | featMAC | featStatus |
		featGuestTSO4 | featGuestTSO6 | featGuestECN | featHostTSO4 | featHostTSO6 | featHostECN
	if d.c.MTU != 0 {
		f |= featMTU
	}
	return f | d.path.ring()
}

// Queues returns the receive and the transmit queue.
func (d *Device) Queues() []virtio.QueueSpec { return d.path.queues() }

// Activate starts the data path with the offloads that the driver took.
func (d *Device) Activate(a virtio.Activation) error {
	if err := d.offload(a.Features); err != nil {
		return err
	}
	return d.path.start(a)
}

// Deactivate ends the data path.
func (d *Device) Deactivate() { d.path.stop() }

// Close closes the tap and the vhost descriptor.
func (d *Device) Close() error { return errors.Join(d.path.close(), d.c.Tap.Close()) }
