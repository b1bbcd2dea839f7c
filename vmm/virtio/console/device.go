// Package console is the virtio console device (VIRTIO 1.2 section 5.3): port 0 is the
// console, with emergency write, and there are named ports where they are asked for
// (VIRTIO_CONSOLE_F_MULTIPORT), each a stream of bytes between a program in the guest and
// one client of the host at a time.
//
// The console's output is lost to who is too slow for it. A named port loses nothing
// while its client is connected: what a client does not take stays in the guest's queue,
// and holds nothing else up.
package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	queueSize = 64

	receiveQueue  = 0
	transmitQueue = 1

	featMultiport      virtio.Features = 1 << 1
	featEmergencyWrite virtio.Features = 1 << 2
	cfgMaxPorts                        = 4
	cfgEmergencyWrite                  = 8
	configSize                         = 12
)

// ErrConfig says that a Config lacks something.
var ErrConfig = errors.New("bad console configuration")

// A Config is what a console is connected to.
type Config struct {
	// Output gets what the guest prints, in writes of at most 4 KiB. It must
	// not block for long, and may be called from several goroutines at once.
	// Its errors are the viewer's, and ignored.
	Output io.Writer
	// Input brings what is typed; nil is no keyboard. The sender is held up
	// while the guest takes nothing.
	Input <-chan []byte
	// Ports are the names of further ports, up to MaxPorts, all different. Without any
	// the device has no queues but the console's.
	Ports []string
}

// A Device is one console.
type Device struct {
	c       Config
	rx, tx  *worker.Worker
	quit    chan struct{} // closed to end the receiving goroutine
	rest    []byte        // input taken from the channel that the guest has not yet; the receiver's
	metrics Metrics

	// Of a device with named ports: the workers of its control queues, the ports but that
	// of the console, and the goroutines that read what clients send.
	controlRx, controlTx *worker.Worker
	ports                []*port
	readers              sync.WaitGroup
	tell                 chan struct{} // has room for one sign that the driver is to be told something

	// mu guards what follows, and the fields of ports that say so. Nothing below it waits.
	mu      sync.Mutex
	console news // of port 0
	closed  bool
	rushed  bool // nobody may wait for a client
}

// New makes a console.
func New(c Config) (*Device, error) {
	if c.Output == nil {
		return nil, fmt.Errorf("console without an output: %w", ErrConfig)
	}
	if err := checkPorts(c.Ports); err != nil {
		return nil, err
	}
	rx, err := worker.New("console-rx-kick")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	tx, err := worker.New("console-tx-kick")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("console: %w", err), rx.Close())
	}
	d := &Device{c: c, rx: rx, tx: tx}
	if err := d.addPorts(); err != nil {
		return nil, errors.Join(fmt.Errorf("console: %w", err), d.Close())
	}
	return d, nil
}

// ID is virtio.IDConsole.
func (d *Device) ID() virtio.ID { return virtio.IDConsole }

// Features returns what the console offers.
func (d *Device) Features() virtio.Features {
	if len(d.ports) > 0 {
		return virtio.OrderedRing | featEmergencyWrite | featMultiport
	}
	return virtio.OrderedRing | featEmergencyWrite
}

// Queues returns the queues: those of the console, and where there are named ports those
// for control and those of each port (section 5.3.2).
func (d *Device) Queues() []virtio.QueueSpec {
	var specs []virtio.QueueSpec
	for _, s := range d.serves() {
		specs = append(specs, virtio.QueueSpec{MaxSize: queueSize, Kick: s.w.Kick()})
	}
	return specs
}

// A service is what is done with a queue.
type service struct {
	w  *worker.Worker
	do func(*worker.Session) error
}

// serves is what is done with each queue, in their order.
func (d *Device) serves() []service {
	out := []service{receiveQueue: {d.rx, d.receive}, transmitQueue: {d.tx, d.transmit}}
	if len(d.ports) == 0 {
		return out
	}
	out = append(out, service{d.controlRx, d.tellDriver}, service{d.controlTx, d.hearDriver})
	for _, p := range d.ports {
		out = append(out, service{p.rx, p.receive}, service{p.tx, p.transmit})
	}
	return out
}

// ReadConfig is the driver reading the configuration: max_nr_ports where there are named
// ports, else no field has a value (section 5.3.4).
func (d *Device) ReadConfig(off uint64, b []byte) {
	var c [configSize]byte
	if n := len(d.ports); n > 0 {
		binary.LittleEndian.PutUint32(c[cfgMaxPorts:], uint32(n+1))
	}
	clear(b)
	if off < configSize {
		copy(b, c[off:])
	}
}

// WriteConfig prints one character when it is written to emerg_wr, also before
// the driver is ready (section 5.3.4).
func (d *Device) WriteConfig(off uint64, b []byte) {
	if off == cfgEmergencyWrite && len(b) > 0 {
		d.print(b[:1])
	}
}

// Activate starts the data path.
func (d *Device) Activate(a virtio.Activation) error {
	d.quit = make(chan struct{})
	d.hurry(false)
	for i, s := range d.serves() {
		if a.Queues[i] == nil || i > transmitQueue && !a.Features.Has(featMultiport) {
			continue
		}
		if err := s.w.Start(a, a.Queues[i], s.do); err != nil {
			d.Deactivate()
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	return nil
}

// Deactivate ends the data path. Clients of named ports stay connected.
func (d *Device) Deactivate() {
	close(d.quit)
	d.hurry(true)
	for _, s := range d.serves() {
		s.w.Stop()
	}
}

// Reset implements virtio.Resetter: the driver has forgotten the named ports, and what
// their clients are connected to is no more.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.console = news{}
	for _, p := range d.ports {
		p.end(p.client)
		p.news, p.open, p.sent, p.sentTo = news{}, false, 0, nil
	}
}

// Close frees what the console holds.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	for _, p := range d.ports {
		p.end(p.client)
	}
	d.mu.Unlock()
	d.readers.Wait()
	var errs []error
	for _, s := range d.serves() {
		if s.w != nil {
			errs = append(errs, s.w.Close())
		}
	}
	return errors.Join(errs...)
}
