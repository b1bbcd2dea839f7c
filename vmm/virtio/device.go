// Package virtio is what all virtio devices and their transport have in common,
// after Virtual I/O Device (VIRTIO) 1.2: feature bits, status, and the small
// interface between a device and the transport that shows it to a guest.
//
// A device knows its configuration, its queues and the guest's memory; the
// transport knows registers, interrupts and the rules of negotiation. A
// driver that breaks a rule makes the device ask for a reset
// (Activation.Broken); it never stops the machine.
package virtio

import (
	"os"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// A QueueSpec is what a device wants of one of its queues.
type QueueSpec struct {
	// MaxSize is the most entries, a power of two up to 32768.
	MaxSize uint16
	// Kick is an eventfd that is signalled when the driver has made buffers
	// available. The device makes it before the jail is entered, reads it and
	// closes it; the transport and the hypervisor write to it. A signal may be
	// stale.
	Kick *os.File
}

// A Device is one virtio device behind a transport. The transport calls
// Activate, Deactivate, Pause and Resume one at a time, the other methods at
// any time from any goroutine.
type Device interface {
	// ID is the device's type.
	ID() ID
	// Features are those the device offers, without the transport's own
	// FeatureVersion1.
	Features() Features
	// Queues describes its queues, in order. It is the same at every call.
	Queues() []QueueSpec
	// ReadConfig fills b with the device configuration at off: zeros past its
	// end.
	ReadConfig(off uint64, b []byte)
	// WriteConfig takes what the driver wrote at off; what may not be written
	// is ignored.
	WriteConfig(off uint64, b []byte)
	// Activate starts the data path: the driver has set DRIVER_OK. An error
	// makes the device need a reset. There may be buffers available already, for
	// which no kick will come.
	Activate(Activation) error
	// Deactivate ends the data path, once no request is under way any more:
	// nothing touches guest memory after it. The indexes of all queues are
	// back in their Queue.Config.Start. It is called once for each Activate that
	// returned nil, also for a device that is broken.
	Deactivate()
	// Close frees what the device holds; it is not active.
	Close() error
}

// A Resetter is a Device that is told of the driver's resets, of which Activate and
// Deactivate know nothing: a pause deactivates, too. The device is not active.
type Resetter interface {
	Reset()
}

// A Requirer is a Device that drivers cannot use without some of the features it offers:
// FEATURES_OK is refused to those that do not accept them (section 3.1.1).
type Requirer interface {
	Requires() Features
}

// An Activation is what a device works with from DRIVER_OK until a reset.
type Activation struct {
	// Features are the negotiated ones.
	Features Features
	Memory   *memory.Memory
	// Queues has an entry for each of Device.Queues, nil where the driver
	// enabled none.
	Queues []*Queue
	// Broken says that the driver broke the rules in the way err tells: the
	// device needs a reset. The device stops its data path by itself before or
	// after, and waits for Deactivate. It may be called from anywhere, often.
	Broken func(err error)
	// ConfigChanged says that the device's configuration has changed by itself.
	ConfigChanged func()
}

// A Queue is one enabled queue.
type Queue struct {
	// Config is where it lies in guest memory, for queue.New or vhost; its
	// Start is where the data path begins, and where Deactivate leaves word
	// of how far it came.
	Config queue.Config
	// Interrupt signals the driver that buffers were used.
	Interrupt func()
	// OnCall tells f the file that raises the queue's interrupt, now and
	// whenever the driver changes it; nil means no interrupt. It is for vhost.
	// f is not called after Deactivate has begun.
	OnCall func(f func(*os.File))
}
