// Package vsock is the virtio socket device (VIRTIO 1.2 section 5.10): streams between
// programs of the guest and the host, by the guest's CID and a port, without a network.
//
// The kernel moves the data (vhost-vsock). It takes from the guest only what comes from
// the guest's own CID and is meant for the host, so guests do not reach each other. The
// event queue would tell the driver that the device lost its connections, which it
// never does while the guest runs: nothing is ever put into it.
package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

const (
	queueSize      = 128 // of the receive and the transmit queue
	eventQueueSize = 16
	served         = 2 // queues that the kernel serves: 0 receives, 1 transmits

	// configSize is that of struct virtio_vsock_config (section 5.10.4): guest_cid.
	configSize = 8
)

// featSeqpacket is VIRTIO_VSOCK_F_SEQPACKET (section 5.10.3).
const featSeqpacket virtio.Features = 1 << 1

// MinCID and MaxCID bound the CIDs of guests (section 5.10.4): 0 to 2 are the
// hypervisor's, the local and the host's, the highest one is that of nobody.
const (
	MinCID = 3
	MaxCID = 1<<32 - 2
)

var (
	// ErrConfig says that a Config is out of range.
	ErrConfig = errors.New("bad vsock configuration")
	// errQueues says that a driver has left out a queue.
	errQueues = errors.New("the driver has not enabled both the receive and the transmit queue")
)

// A Config is what a socket device is made of.
type Config struct {
	// Vhost is /dev/vhost-vsock newly opened. The Device owns it, also after an error.
	Vhost *os.File
	// CID is the guest's, MinCID to MaxCID; no other guest of the host has it.
	CID uint32
}

// A Device is the guest's socket device.
type Device struct {
	cid     uint32
	v       *vhost.Device
	q       *vhost.Queues
	event   *os.File // kick of the event queue: nobody waits for it
	metrics Metrics
}

// New makes a socket device.
func New(c Config) (*Device, error) {
	if c.CID < MinCID || c.CID > MaxCID {
		return nil, errors.Join(
			fmt.Errorf("vsock device with CID %d (want %d to %d): %w", c.CID, MinCID, uint32(MaxCID), ErrConfig), c.Vhost.Close())
	}
	v, err := vhost.New(c.Vhost)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vsock device: %w", err), c.Vhost.Close())
	}
	if err := v.SetGuestCID(uint64(c.CID)); err != nil {
		return nil, errors.Join(fmt.Errorf("vsock device: %w", err), v.Close())
	}
	d := &Device{cid: c.CID, v: v}
	if d.q, err = vhost.NewQueues(v, served, func(on bool, _ []uint32) error { return v.SetRunning(on) }); err != nil {
		return nil, fmt.Errorf("vsock device: %w", err)
	}
	if d.event, err = eventfd.New("vsock-event-kick", false); err != nil {
		return nil, errors.Join(fmt.Errorf("vsock device: %w", err), d.q.Close())
	}
	return d, nil
}

// ID is virtio.IDVsock.
func (d *Device) ID() virtio.ID { return virtio.IDVsock }

// Features are those of the kernel's that this package knows.
func (d *Device) Features() virtio.Features {
	const want = featSeqpacket | virtio.FeatureIndirectDesc | virtio.FeatureEventIdx
	return want & virtio.Features(d.v.Features())
}

// Queues returns the receive, the transmit and the event queue (section 5.10.2).
func (d *Device) Queues() []virtio.QueueSpec {
	return append(d.q.Specs(queueSize), virtio.QueueSpec{MaxSize: eventQueueSize, Kick: d.event})
}

// ReadConfig is the driver reading the configuration.
func (d *Device) ReadConfig(off uint64, b []byte) {
	var c [configSize]byte
	binary.LittleEndian.PutUint64(c[:], uint64(d.cid))
	clear(b)
	if off < configSize {
		copy(b, c[off:])
	}
}

// WriteConfig does nothing: all of it is read-only.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate lets the kernel serve the queues, both of them.
func (d *Device) Activate(a virtio.Activation) error {
	a.Queues = a.Queues[:served]
	for _, q := range a.Queues {
		if q == nil {
			return errQueues
		}
	}
	return d.q.Start(a)
}

// Deactivate stops the kernel. Connections stay: what the host sends waits for the
// queues, as far as the guest has room for it.
func (d *Device) Deactivate() {
	if err := d.q.Stop(); err != nil {
		d.metrics.errors.Add(1)
	}
}

// Close closes the descriptors, which ends all connections.
func (d *Device) Close() error { return errors.Join(d.q.Close(), d.event.Close()) }
