// Package net is the virtio network device (VIRTIO 1.2 section 5.1) on a tap of
// the host, with a pair of queues for each queue of the tap.
//
// Packets go from queue to tap in the kernel where there are vhost-net
// descriptors, and else through two goroutines of this package. Offloads are the
// tap's: it takes and gives the same struct virtio_net_hdr as the driver. So is
// the choice of a queue for a packet to the guest: the one that the guest has
// used for that flow.
package net

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	queueSize = 256

	receiveQueue  = 0
	transmitQueue = 1
	pair          = 2  // queues of one pair
	controlSize   = 64 // of the control queue

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
	featCtrlVQ    virtio.Features = 1 << 17
	featMQ        virtio.Features = 1 << 22
)

// MaxPairs is the most pairs of queues of a device.
const MaxPairs = 16

const (
	// MinMTU and MaxMTU bound Config.MTU (section 5.1.4.1).
	MinMTU = 68
	MaxMTU = 65535
)

// ErrConfig says that a Config is out of range.
var ErrConfig = errors.New("bad network configuration")

// A Pair is what moves the packets of one pair of queues.
type Pair struct {
	// Tap is /dev/net/tun attached to an interface with IFF_TAP, IFF_NO_PI and
	// IFF_VNET_HDR, and IFF_MULTI_QUEUE where there are several. The Device owns it.
	Tap *os.File
	// Vhost is /dev/vhost-net newly opened, or nil, which only a device with one pair
	// can do without. The Device owns it.
	Vhost *os.File
}

// A Config is what a network device is made of.
type Config struct {
	// Pairs are 1 to MaxPairs, all on one interface. One per vCPU is best.
	Pairs []Pair
	// MAC is the guest's address: unicast, 6 bytes.
	MAC []byte
	// MTU is told to the guest; 0 says nothing.
	MTU uint16
	// LinkDown has the link begin down (SetLink).
	LinkDown bool
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
	paths   []dataPath                  // of each pair
	offload func(virtio.Features) error // tells the tap what the driver takes
	attach  func(i int, on bool) error  // attaches the tap's queue i, or detaches it
	metrics Metrics
	control *worker.Worker // nil where there is one pair
	// attached is how many of the tap's queues, the first ones, get packets.
	attached int
	started  []dataPath // while active
	linkDown atomic.Bool
	changed  atomic.Pointer[func()] // ConfigChanged of the last Activation
}

// New makes a network device.
func New(c Config) (*Device, error) {
	if len(c.Pairs) == 0 || len(c.Pairs) > MaxPairs {
		return nil, fmt.Errorf("network device with %d pairs of queues (want 1 to %d): %w", len(c.Pairs), MaxPairs, ErrConfig)
	}
	if len(c.MAC) != 6 || c.MAC[0]&1 != 0 || c.MTU != 0 && c.MTU < MinMTU {
		return nil, fmt.Errorf("network device with MAC %x (want 6 bytes, unicast), MTU %d (want 0 or %d to %d): %w",
			c.MAC, c.MTU, MinMTU, MaxMTU, ErrConfig)
	}
	for _, p := range c.Pairs {
		if p.Tap == nil || p.Vhost == nil && len(c.Pairs) > 1 {
			return nil, fmt.Errorf("network device with a pair of queues that lacks a tap, or with several without vhost-net: %w", ErrConfig)
		}
		if err := prepareTap(p.Tap); err != nil {
			return nil, fmt.Errorf("network device: %w", err)
		}
	}
	d := &Device{c: c, attached: len(c.Pairs),
		offload: func(f virtio.Features) error { return setOffloads(c.Pairs[0].Tap, f) },
		attach:  func(i int, on bool) error { return attachQueue(c.Pairs[i].Tap, on) }}
	d.linkDown.Store(c.LinkDown)
	if err := errors.Join(d.addPaths(), d.setPairs(1)); err != nil {
		return nil, errors.Join(fmt.Errorf("network device: %w", err), d.closePaths())
	}
	return d, nil
}

// addPaths makes what serves the queues.
func (d *Device) addPaths() error {
	for _, pair := range d.c.Pairs {
		var p dataPath
		var err error
		if pair.Vhost == nil {
			p, err = newUserPath(d, pair.Tap)
		} else {
			var v *vhost.Device
			if v, err = vhost.New(pair.Vhost); err == nil {
				p, err = newKernelPath(d, v, pair.Tap)
			}
		}
		if err != nil {
			return err
		}
		d.paths = append(d.paths, p)
	}
	if len(d.paths) == 1 {
		return nil
	}
	var err error
	d.control, err = worker.New("net-control-kick")
	return err
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
	if d.control != nil {
		f |= featCtrlVQ | featMQ
	}
	for _, p := range d.paths {
		f |= p.ring() // the same for all
	}
	return f
}

// Queues returns the receive and the transmit queue of each pair, and the control
// queue where there are several.
func (d *Device) Queues() []virtio.QueueSpec {
	var specs []virtio.QueueSpec
	for _, p := range d.paths {
		specs = append(specs, p.queues()...)
	}
	if d.control != nil {
		specs = append(specs, virtio.QueueSpec{MaxSize: controlSize, Kick: d.control.Kick()})
	}
	return specs
}

// Activate starts the data path with the offloads that the driver took.
func (d *Device) Activate(a virtio.Activation) error {
	d.changed.Store(&a.ConfigChanged)
	if err := d.offload(a.Features); err != nil {
		return err
	}
	err := d.activate(a)
	if err != nil {
		d.Deactivate()
	}
	return err
}

// activate starts one pair, and with VIRTIO_NET_F_MQ the others and the control
// queue. Without it that would be queue 2 (section 5.1.2), and there is no command
// for it.
func (d *Device) activate(a virtio.Activation) error {
	paths := d.paths[:1]
	var control *virtio.Queue
	if d.control != nil && a.Features.Has(featMQ|featCtrlVQ) {
		paths, control = d.paths, a.Queues[len(d.paths)*pair]
	}
	for i, p := range paths {
		own := a
		own.Queues = a.Queues[i*pair : (i+1)*pair]
		if err := p.start(own); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
		d.started = append(d.started, p)
	}
	if control == nil {
		return nil
	}
	return d.control.Start(a, control, d.serveControl)
}

// Deactivate ends the data path.
func (d *Device) Deactivate() {
	if d.control != nil {
		d.control.Stop()
	}
	for _, p := range d.started {
		p.stop()
	}
	d.started = nil
}

// Reset is the driver's: it starts with one pair again.
func (d *Device) Reset() {
	if err := d.setPairs(1); err != nil {
		d.metrics.errors.Add(1)
	}
}

// Close closes the taps and the vhost descriptors.
func (d *Device) Close() error {
	errs := []error{d.closePaths()}
	for _, p := range d.c.Pairs {
		errs = append(errs, p.Tap.Close())
	}
	return errors.Join(errs...)
}

func (d *Device) closePaths() error {
	var errs []error
	for _, p := range d.paths {
		errs = append(errs, p.close())
	}
	if d.control != nil {
		errs = append(errs, d.control.Close())
	}
	return errors.Join(errs...)
}
