// Package console is the virtio console device (VIRTIO 1.2 section 5.3) with one
// port and no features but emergency write.
package console

import (
	"errors"
	"fmt"
	"io"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	queueSize = 64

	receiveQueue  = 0
	transmitQueue = 1

	featEmergencyWrite virtio.Features = 1 << 2
	cfgEmergencyWrite                  = 8
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
}

// A Device is one console.
type Device struct {
	c       Config
	rx, tx  *worker.Worker
	quit    chan struct{} // closed to end the receiving goroutine
	rest    []byte        // input taken from the channel that the guest has not yet; the receiver's
	metrics Metrics
}

// New makes a console.
func New(c Config) (*Device, error) {
	if c.Output == nil {
		return nil, fmt.Errorf("console without an output: %w", ErrConfig)
	}
	rx, err := worker.New("console-rx-kick")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	tx, err := worker.New("console-tx-kick")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("console: %w", err), rx.Close())
	}
	return &Device{c: c, rx: rx, tx: tx}, nil
}

// ID is virtio.IDConsole.
func (d *Device) ID() virtio.ID { return virtio.IDConsole }

// Features returns what the console offers.
func (d *Device) Features() virtio.Features {
	return virtio.OrderedRing | featEmergencyWrite
}

// Queues returns the receive and the transmit queue.
func (d *Device) Queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{
		receiveQueue:  {MaxSize: queueSize, Kick: d.rx.Kick()},
		transmitQueue: {MaxSize: queueSize, Kick: d.tx.Kick()},
	}
}

// ReadConfig fills b with zeros: without its features no field has a value.
func (d *Device) ReadConfig(_ uint64, b []byte) { clear(b) }

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
	if q := a.Queues[transmitQueue]; q != nil {
		if err := d.tx.Start(a, q, d.transmit); err != nil {
			return fmt.Errorf("transmit queue: %w", err)
		}
	}
	if q := a.Queues[receiveQueue]; q != nil {
		if err := d.rx.Start(a, q, d.receive); err != nil {
			d.Deactivate()
			return fmt.Errorf("receive queue: %w", err)
		}
	}
	return nil
}

// Deactivate ends the data path.
func (d *Device) Deactivate() {
	close(d.quit)
	d.rx.Stop()
	d.tx.Stop()
}

// Close frees what the console holds.
func (d *Device) Close() error { return errors.Join(d.rx.Close(), d.tx.Close()) }
