// Package balloon is the virtio memory balloon (VIRTIO 1.2 section 5.5): a driver
// puts pages into it that its guest can do without, as many as it is asked for,
// and the host has them until the guest takes them back.
//
// What a driver says of its pages is its own business: a page that it names wrongly,
// or goes on using, reads as zeros, for the guest and for every device, and harms
// nobody else.
package balloon

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	// PageSize is the unit of the balloon in bytes, whatever pages guest and host have.
	PageSize = 4096

	queueSize = 128
)

// Feature bits (section 5.5.3). Without MUST_TELL_HOST a guest may use a page again
// before it says so: to the host it is a page like any other. Without PAGE_POISON
// a driver that counts on what is in free pages does not report them.
const (
	featStatsVQ      virtio.Features = 1 << 1
	featDeflateOnOOM virtio.Features = 1 << 2
	featReporting    virtio.Features = 1 << 5
)

// ErrTarget says that a balloon cannot be that large.
var ErrTarget = errors.New("bad balloon size")

// A Config is what a balloon is made of.
type Config struct {
	// Max is the most it is asked to hold in bytes, a multiple of PageSize.
	Max uint64
	// Target is what it is asked to hold at first, as SetTarget takes it.
	Target uint64
}

// A Device is one balloon.
type Device struct {
	max     uint64
	workers []*worker.Worker // one a queue, in their order
	ask     chan struct{}    // has room for one wish for statistics
	quit    chan struct{}    // closed to end who waits for such a wish
	metrics Metrics

	// mu guards what follows. Below it come the locks that changed takes: the MSI-X
	// table's.
	mu      sync.Mutex
	target  uint32 // pages: num_pages of the configuration
	actual  uint32 // pages: as the driver says
	changed func() // tells the driver of a new target; nil while the device is not active
	untold  bool   // the target has changed while nobody could be told
	canAsk  bool   // the driver has a queue for statistics
	asked   time.Time
	stats   Statistics
	fresh   chan struct{} // closed when stats are new
}

// New makes a balloon, empty.
func New(c Config) (*Device, error) {
	d := &Device{max: c.Max, ask: make(chan struct{}, 1), fresh: make(chan struct{})}
	if err := d.SetTarget(c.Target); err != nil {
		return nil, err
	}
	for i := range queueCount {
		w, err := worker.New(fmt.Sprintf("balloon-kick-%d", i))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("balloon: %w", err), d.Close())
		}
		d.workers = append(d.workers, w)
	}
	return d, nil
}

// ID is virtio.IDBalloon.
func (d *Device) ID() virtio.ID { return virtio.IDBalloon }

// Features returns what the balloon offers.
func (d *Device) Features() virtio.Features {
	return virtio.OrderedRing | featStatsVQ | featDeflateOnOOM | featReporting
}

// Queues returns the queues.
func (d *Device) Queues() []virtio.QueueSpec {
	specs := make([]virtio.QueueSpec, len(d.workers))
	for i, w := range d.workers {
		specs[i] = virtio.QueueSpec{MaxSize: queueSize, Kick: w.Kick()}
	}
	return specs
}

// Activate starts the data path.
func (d *Device) Activate(a virtio.Activation) error {
	d.quit = make(chan struct{})
	stats := false
	for i, serve := range d.serves(a.Features) {
		if a.Queues[i] == nil {
			continue
		}
		if err := d.workers[i].Start(a, a.Queues[i], serve); err != nil {
			d.Deactivate()
			return fmt.Errorf("queue %d: %w", i, err)
		}
		stats = stats || i == statsQueue && a.Features.Has(featStatsVQ)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed, d.canAsk = a.ConfigChanged, stats
	if d.untold {
		d.untold = false
		d.changed()
	}
	return nil
}

// Deactivate ends the data path. What the balloon holds stays in it.
func (d *Device) Deactivate() {
	d.mu.Lock()
	d.changed, d.canAsk = nil, false
	d.mu.Unlock()
	close(d.quit)
	for _, w := range d.workers {
		w.Stop()
	}
}

// Reset implements virtio.Resetter: the driver has forgotten what is in the balloon.
// What it was asked for stays.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.actual, d.stats = 0, Statistics{}
}

// Close frees what the balloon holds.
func (d *Device) Close() error {
	var errs []error
	for _, w := range d.workers {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}
