// Package transport shows a virtio device to the guest as a PCI function, after
// VIRTIO 1.2 section 4.1 ("Virtio Over PCI Bus"), modern interface only.
//
// Registers lie in one 64-bit BAR of 32 KiB, each group in a page of its own.
// Every queue has its own notify address with an ioeventfd behind it, so a
// kick goes from the guest to the data path without passing through this
// package; so do interrupts, by MSI-X vectors.
package transport

import (
	"errors"
	"fmt"
	"log"
	"sync"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

var (
	errNoFeatures = errors.New("driver set DRIVER_OK without FEATURES_OK")
	// ErrState says that a saved state does not belong to this device.
	ErrState = errors.New("state of another device")
)

// A Transport is a PCI function with a virtio device behind it.
type Transport struct {
	dev      virtio.Device
	name     string
	mem      *memory.Memory
	notifier pci.Notifier
	cfg      *pci.Config
	msix     *pci.MSIX
	capPCI   int // offset of the PCI configuration access capability
	offered  virtio.Features

	status     statusReg
	isr        atomic.Uint32
	generation atomic.Uint32
	reports    atomic.Uint64
	metrics    Metrics
	// configVector is the vector for changes of the configuration.
	configVector atomic.Uint32

	// mu guards what follows and is held while the device is activated and
	// deactivated. A data path never takes it. Below it come the locks of
	// the device, of queueRegs and of the MSI-X table.
	mu            sync.Mutex
	featureSelect uint32
	driverSelect  uint32
	accepted      virtio.Features
	queueSelect   uint16
	queues        []*queueRegs // the slice itself is fixed
	active        bool         // Activate was called, Deactivate was not
	paused        bool
}

// classes are the PCI classes of device types.
var classes = map[virtio.ID]pci.Class{
	virtio.IDNet:     pci.ClassEthernet,
	virtio.IDBlock:   pci.ClassStorageOther,
	virtio.IDConsole: pci.ClassCommunication,
	virtio.IDEntropy: pci.ClassOther,
}

// seldom are devices whose queues share one interrupt vector: setting one up costs a driver some ten exits, and their
// queues are little used, or by turns.
var seldom = map[virtio.ID]bool{virtio.IDConsole: true, virtio.IDBalloon: true}

// New makes the function that shows d to the guest, with all interrupt vectors
// it will need. The Transport owns d from then on; after an error d is still
// the caller's.
func New(d virtio.Device, mem *memory.Memory, r pci.MSIRouter, n pci.Notifier) (*Transport, error) {
	specs := d.Queues()
	if len(specs) == 0 || len(specs) > maxQueues {
		return nil, fmt.Errorf("virtio device %d: %d queues, at most %d", d.ID(), len(specs), maxQueues)
	}
	class, ok := classes[d.ID()]
	if !ok {
		class = pci.ClassOther
	}
	t := &Transport{
		dev: d, name: fmt.Sprintf("virtio device %d", d.ID()), mem: mem, notifier: n,
		offered: d.Features() | ringFeatures,
		cfg: pci.NewConfig(pci.Identity{
			Vendor: vendorVirtio, Device: deviceBase + uint16(d.ID()),
			SubVendor: vendorVirtio, SubDevice: subDevice,
			Revision: revision, Class: class,
		}),
	}
	if err := t.build(specs, r); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", t.name, err), t.closeVectors())
	}
	t.resetRegisters()
	return t, nil
}

// build fills the configuration space and makes the queues' files.
func (t *Transport) build(specs []virtio.QueueSpec, r pci.MSIRouter) error {
	if err := t.cfg.AddBAR(bar, pci.BAR{Size: barSize, Is64: true}); err != nil {
		return err
	}
	if err := t.cfg.AddExpress(); err != nil {
		return err
	}
	var err error
	// One vector for changes of the configuration, and one for each queue.
	vectors := 1 + len(specs)
	if seldom[t.dev.ID()] {
		vectors = 2
	}
	t.msix, err = pci.NewMSIX(t.cfg, r, vectors, bar, msixOffset, pbaOffset, t.report)
	if err != nil {
		return err
	}
	if err := t.addCapabilities(len(specs)); err != nil {
		return err
	}
	for i, s := range specs {
		q, err := newQueueRegs(t, uint16(i), s)
		if err != nil {
			return err
		}
		t.queues = append(t.queues, q)
	}
	return nil
}

// report logs what went wrong with the device: the first time, the second, the
// fourth, and so on, since a guest can make things go wrong as often as it
// likes. It goes past package log's time stamps, for which Go would look for a
// time zone, in a file that no jail has.
func (t *Transport) report(err error) {
	n := t.reports.Add(1)
	if n&(n-1) != 0 {
		return
	}
	// There is nowhere to say that nothing can be said.
	_, _ = fmt.Fprintf(log.Writer(), "%s: %v (message %d)\n", t.name, err, n)
}

// Config returns the configuration space.
func (t *Transport) Config() *pci.Config { return t.cfg }

// Device is the device behind the function.
func (t *Transport) Device() virtio.Device { return t.dev }

// BARRead is the guest reading registers.
func (t *Transport) BARRead(_ int, off uint64, b []byte) {
	switch in := off % areaSize; off - in {
	case commonOffset:
		t.readCommon(int(in), b)
	case isrOffset:
		clear(b)
		if in == 0 && len(b) > 0 {
			b[0] = byte(t.isr.Swap(0)) // reading clears (section 4.1.4.5)
		}
	case deviceOffset:
		t.dev.ReadConfig(in, b)
	case msixOffset:
		t.msix.ReadTable(in, b)
	case pbaOffset:
		t.msix.ReadPBA(in, b)
	default:
		clear(b)
	}
}

// BARWrite is the guest writing registers.
func (t *Transport) BARWrite(_ int, off uint64, b []byte) {
	switch in := off % areaSize; off - in {
	case commonOffset:
		t.writeCommon(int(in), b)
	case deviceOffset:
		t.dev.WriteConfig(in, b)
	case notifyOffset:
		t.notify(in / notifyStride)
	case msixOffset:
		t.msix.WriteTable(in, b)
	}
}

// BARMapped puts the ioeventfds where the notify addresses are now.
func (t *Transport) BARMapped(_ int, gpa uint64, mapped bool) {
	for i, q := range t.queues {
		q.placeIOEventFD(gpa+notifyOffset+notifyStride*uint64(i), mapped)
	}
}

// Close ends the device and frees what it holds.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deactivate()
	for _, q := range t.queues {
		q.close()
	}
	return errors.Join(t.dev.Close(), t.closeVectors())
}

func (t *Transport) closeVectors() error {
	if t.msix == nil {
		return nil
	}
	return t.msix.Close()
}
