// Package mem is the virtio memory device (VIRTIO 1.2 section 5.15): a driver plugs
// blocks of memory in, as many as it is asked for, and unplugs what is more.
//
// A block that is not plugged in is out of the guest's reach: package memory does not
// let KVM, vhost or io_uring touch one, and every device looks. So a guest never has
// more than it was asked to have, or has not given back yet.
package mem

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const queueSize = 64

// Feature bits (section 5.15.3).
const (
	// featACPIPXM says that node_id of the configuration is a proximity domain of ACPI's.
	featACPIPXM virtio.Features = 1 << 0
	// featUnpluggedInaccessible says that unplugged memory must not be touched, not even
	// read. A driver has to accept it.
	featUnpluggedInaccessible virtio.Features = 1 << 1
)

// ErrRequested says that no such size can be asked for.
var ErrRequested = errors.New("bad size of memory to plug in")

// A Device is one memory device.
type Device struct {
	mem     *memory.Memory
	domain  int // negative where the guest is told of none
	w       *worker.Worker
	metrics Metrics

	// mu guards what follows. Below it come the locks that changed takes: the MSI-X
	// table's.
	mu        sync.Mutex
	requested uint64 // bytes
	changed   func() // tells the driver of a new size; nil while the device is not active
	untold    bool   // the size has changed while nobody could be told
}

// New makes a device for the memory of m that can be plugged in (memory.MapPluggable),
// which asks for so many bytes of it at first, as SetRequested takes it. domain is the
// proximity domain that SRAT has the memory in, up to 65535, or negative where the guest
// is told of none.
func New(m *memory.Memory, requested uint64, domain int) (*Device, error) {
	d := &Device{mem: m, domain: domain}
	if err := d.SetRequested(requested); err != nil {
		return nil, err
	}
	var err error
	if d.w, err = worker.New("mem-kick"); err != nil {
		return nil, fmt.Errorf("memory device: %w", err)
	}
	return d, nil
}

// ID is virtio.IDMemory.
func (d *Device) ID() virtio.ID { return virtio.IDMemory }

// Features returns what the device offers.
func (d *Device) Features() virtio.Features {
	f := virtio.FeatureIndirectDesc | virtio.FeatureEventIdx | featUnpluggedInaccessible
	if d.domain >= 0 {
		f |= featACPIPXM
	}
	return f
}

// Requires implements virtio.Requirer.
func (d *Device) Requires() virtio.Features { return featUnpluggedInaccessible }

// Queues returns the request queue.
func (d *Device) Queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{{MaxSize: queueSize, Kick: d.w.Kick()}}
}

// Activate starts the data path.
func (d *Device) Activate(a virtio.Activation) error {
	if q := a.Queues[0]; q != nil {
		if err := d.w.Start(a, q, d.serve); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = a.ConfigChanged
	if d.untold {
		d.untold = false
		d.changed()
	}
	return nil
}

// Deactivate ends the data path. What is plugged in stays so, also after a reset of the
// device: its guest may be using it.
func (d *Device) Deactivate() {
	d.mu.Lock()
	d.changed = nil
	d.mu.Unlock()
	d.w.Stop()
}

// Close frees what the device holds.
func (d *Device) Close() error { return d.w.Close() }
