// Package blk is the virtio block device (VIRTIO 1.2 section 5.2) on a raw file
// or a block device.
//
// Each queue has a goroutine and an io_uring; requests are read and written straight from
// and to guest memory. A flush that is answered is on the medium: fdatasync has returned.
package blk

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

const (
	// SectorSize is the unit of the capacity and of all requests in bytes.
	SectorSize = 512
	// MaxQueues is the most queues a device has.
	MaxQueues = 16
	// SerialSize is the most bytes a serial number has.
	SerialSize = 20

	queueSize = 128
	segMax    = queueSize - 2 // all but header and status
)

// Feature bits (section 5.2.3).
const (
	featSegMax      virtio.Features = 1 << 2
	featReadOnly    virtio.Features = 1 << 5
	featBlkSize     virtio.Features = 1 << 6
	featFlush       virtio.Features = 1 << 9
	featTopology    virtio.Features = 1 << 10
	featConfigWCE   virtio.Features = 1 << 11
	featMQ          virtio.Features = 1 << 12
	featDiscard     virtio.Features = 1 << 13
	featWriteZeroes virtio.Features = 1 << 14
)

var (
	// ErrSize says that a disk is empty or ends within a block.
	ErrSize = errors.New("bad disk size")
	// ErrFile says that a file is no disk, or was not opened for what is wanted.
	ErrFile = errors.New("file cannot be a disk")
	// ErrConfig says that a Config is out of range.
	ErrConfig = errors.New("bad disk configuration")
)

// A Config is what a disk is made of.
type Config struct {
	// File is a regular file or a block device, open for reading, and for
	// writing unless ReadOnly. Opened with O_DIRECT it is used so, past the
	// host's page cache. The Device owns it.
	File     *os.File
	ReadOnly bool
	// Serial is at most SerialSize bytes of ASCII.
	Serial string
	// Queues is 1 to MaxQueues; 0 means 1. One per vCPU is best.
	Queues int
	// Rings are made before (NewRing), one for each queue, where the process cannot make
	// them any more. They stay the caller's: when the Device is closed they can have
	// another, or are closed, where that cannot be.
	Rings []*iouring.Ring
	// Buffers is the guest's memory where its pages stay what they are, else nil. Data that is in
	// one piece goes straight there, without the kernel's looking it up. Rings bring their own.
	Buffers *iouring.Buffers
	Limits  Limits
	// Trouble is told once of each kind that the file has given an error: full where there
	// was no room for what was written. It must not wait. nil: nobody wants to know.
	Trouble func(full bool)
	clock   func() int64 // of tests
}

// A Device is one disk.
type Device struct {
	file     *os.File
	readOnly bool
	serial   [SerialSize]byte
	geo      geometry
	size     atomic.Uint64 // bytes; only grows
	queues   []*worker
	metrics  Metrics
	limits   atomic.Pointer[limiter] // nil where nothing is limited
	failing  atomic.Bool             // Fail was called
	active   atomic.Bool             // Activate was called, Deactivate was not
	trouble  trouble
	clock    func() int64 // monotonic, in nanoseconds
	// writeback is the writeback field of the configuration: what the driver
	// chose, 1 at a reset.
	writeback atomic.Uint32
	broken    func(error)            // of the present Activation
	changed   atomic.Pointer[func()] // ConfigChanged of the last Activation
}

// New makes a disk. It opens everything that the disk will need: rings, events.
func New(c Config) (*Device, error) {
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.File == nil || c.Queues < 0 || len(c.Rings) > 0 && len(c.Rings) < c.Queues || c.Queues > MaxQueues || len(c.Serial) > SerialSize {
		return nil, fmt.Errorf("disk with %d queues (1 to %d), serial of %d bytes (at most %d): %w",
			c.Queues, MaxQueues, len(c.Serial), SerialSize, ErrConfig)
	}
	geo, err := measure(c.File, c.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", c.File.Name(), err)
	}
	d := &Device{file: c.File, readOnly: c.ReadOnly, geo: geo, trouble: trouble{tell: c.Trouble}, clock: c.clock}
	if d.clock == nil {
		made := time.Now()
		d.clock = func() int64 { return int64(time.Since(made)) }
	}
	d.limits.Store(newLimiter(c.Limits))
	d.size.Store(geo.size)
	copy(d.serial[:], c.Serial)
	d.writeback.Store(1)
	for i := range c.Queues {
		var spare *iouring.Ring
		if len(c.Rings) > 0 {
			spare = c.Rings[i]
		}
		w, err := newWorker(d, spare, c.Buffers)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("disk %s: %w", c.File.Name(), err), d.closeWorkers())
		}
		d.queues = append(d.queues, w)
	}
	return d, nil
}

// ID is virtio.IDBlock.
func (d *Device) ID() virtio.ID { return virtio.IDBlock }

// Features returns what the disk offers.
func (d *Device) Features() virtio.Features {
	f := virtio.RingFeatures |
		featSegMax | featBlkSize | featTopology | featFlush | featConfigWCE
	if len(d.queues) > 1 {
		f |= featMQ
	}
	if d.readOnly {
		return f | featReadOnly
	}
	return f | featDiscard | featWriteZeroes
}

// Queues returns the request queues.
func (d *Device) Queues() []virtio.QueueSpec {
	specs := make([]virtio.QueueSpec, len(d.queues))
	for i, w := range d.queues {
		specs[i] = virtio.QueueSpec{MaxSize: queueSize, Kick: w.kick}
	}
	return specs
}

// Size is the disk's size in bytes.
func (d *Device) Size() uint64 { return d.size.Load() }

// Resize makes the disk larger, whose file has grown already, and tells the driver of
// the new capacity (section 5.2.5.1). One that does not look goes on with what it knows.
func (d *Device) Resize(size uint64) error {
	switch old := d.size.Load(); {
	case size < old:
		return fmt.Errorf("%d bytes of a disk of %d: a disk only grows: %w", size, old, ErrSize)
	case size%uint64(max(d.geo.logical, SectorSize)) != 0:
		return fmt.Errorf("%d bytes, want a multiple of %d: %w", size, d.geo.logical, ErrSize)
	case size == old:
		return nil
	}
	fi, err := d.file.Stat()
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.file.Name(), err)
	}
	switch {
	case !fi.Mode().IsRegular():
		return fmt.Errorf("disk %s has the size of a device: %w", d.file.Name(), ErrFile)
	case uint64(fi.Size()) < size:
		return fmt.Errorf("%d bytes of a file of %d: %w", size, fi.Size(), ErrSize)
	}
	d.size.Store(size)
	if changed := d.changed.Load(); changed != nil {
		(*changed)()
	}
	return nil
}

// Activate starts a goroutine for each queue.
func (d *Device) Activate(a virtio.Activation) error {
	d.broken = a.Broken
	d.changed.Store(&a.ConfigChanged)
	if a.Features.Has(featConfigWCE) && !a.Features.Has(featFlush) {
		d.writeback.Store(0) // section 5.2.5.2: a driver that cannot flush
	}
	for i, q := range a.Queues {
		if q == nil {
			continue
		}
		if err := d.queues[i].start(a, q); err != nil {
			d.Deactivate()
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	d.active.Store(true)
	return nil
}

// Deactivate waits for all requests under way and ends the goroutines.
func (d *Device) Deactivate() {
	d.active.Store(false)
	for _, w := range d.queues {
		w.signalStop()
	}
	for _, w := range d.queues {
		w.wait()
	}
}

// Flush puts everything written so far on the medium.
func (d *Device) Flush() error {
	if d.readOnly {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("flush disk %s: %w", d.file.Name(), err)
	}
	return nil
}

// Close flushes and closes the disk.
func (d *Device) Close() error {
	return errors.Join(d.Flush(), d.closeWorkers(), d.file.Close())
}

func (d *Device) closeWorkers() error {
	var errs []error
	for _, w := range d.queues {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}
