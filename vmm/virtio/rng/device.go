// Package rng is the virtio entropy device (VIRTIO 1.2 section 5.4): it fills
// the driver's buffers from a file, /dev/urandom as a rule.
package rng

import (
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const queueSize = 64

// ErrFile says that there is no file to read entropy from.
var ErrFile = errors.New("no entropy file")

// A Device is one entropy source.
type Device struct {
	file    *os.File
	w       *worker.Worker
	metrics Metrics
}

// New makes a device that reads f, which it owns.
func New(f *os.File) (*Device, error) {
	if f == nil {
		return nil, fmt.Errorf("entropy device: %w", ErrFile)
	}
	w, err := worker.New("entropy-kick")
	if err != nil {
		return nil, fmt.Errorf("entropy device: %w", err)
	}
	return &Device{file: f, w: w}, nil
}

// ID is virtio.IDEntropy.
func (d *Device) ID() virtio.ID { return virtio.IDEntropy }

// Features returns what the device offers: none of its own.
func (d *Device) Features() virtio.Features {
	return virtio.OrderedRing
}

// Queues returns the request queue.
func (d *Device) Queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{{MaxSize: queueSize, Kick: d.w.Kick()}}
}

// ReadConfig fills b with zeros: there is no configuration.
func (d *Device) ReadConfig(_ uint64, b []byte) { clear(b) }

// WriteConfig does nothing.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate starts the data path.
func (d *Device) Activate(a virtio.Activation) error {
	if a.Queues[0] == nil {
		return nil
	}
	return d.w.Start(a, a.Queues[0], d.serve)
}

// Deactivate ends the data path.
func (d *Device) Deactivate() { d.w.Stop() }

// Close closes the file.
func (d *Device) Close() error { return errors.Join(d.w.Close(), d.file.Close()) }
