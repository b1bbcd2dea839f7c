package vfio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// A mapping is memory of a device in this process.
type mapping interface {
	io.Closer
	HostAddr() uintptr
}

// A backend is a device as a Function uses it: a Device, or another in tests. Its methods may be
// called by several goroutines at once.
type backend interface {
	regionOf(i int) region
	irqOf(i int) irqs
	read(region int, off uint64, b []byte) error
	write(region int, off uint64, b []byte) error
	mapArea(region int, a area, align uint64) (mapping, error)
	mapBAR(gpa, size uint64, host uintptr) error
	unmapBAR(gpa, size uint64) error
	setIRQs(index, start int, fds ...int) error
	unmaskBy(fd int) error
	disableIRQs(index int) error
	reset() error
	close() error
}

// Slots show memory of a device to the guest: memory slots of KVM's.
type Slots interface {
	// AddSlot shows size bytes at host at gpa. It fails where something else is.
	AddSlot(gpa, size uint64, host uintptr) (slot uint32, err error)
	RemoveSlot(slot uint32) error
}

// A Line is a level-triggered interrupt pin that devices share.
type Line interface {
	// Connect raises the line by trigger until the guest has handled the interrupt; then
	// it signals resample. Disconnect undoes it.
	Connect(trigger, resample *os.File) error
	Disconnect(trigger *os.File) error
}

// A Config is what a Function is made with.
type Config struct {
	Router pci.MSIRouter
	Slots  Slots
	Line   Line // of INTx
	// RootBus: the function is on bus 0, and not behind a root port.
	RootBus bool
	// ROM shows the expansion ROM.
	ROM bool
	// Error is called when the host reports an uncorrected error of the device, Request
	// when it wants the device back, perhaps again and again; neither after Close.
	// Report is told what goes wrong otherwise. They may be called with locks held.
	Error, Request func()
	Report         func(error)
}

// A Function is a device of the host's on a guest's bus. It implements pci.Function.
type Function struct {
	c     Config
	dev   backend
	cfg   *pci.Config
	bars  [pci.ROM + 1]bar
	msix  *pci.MSIX // nil where the device has none
	msi   *msi      // so is this
	table msixTable
	start [pci.ConfigSize]byte // configuration space after the first reset
	// defaults are fields that a reset brings back to what they were at first.
	defaults []field

	metrics metrics
	events  []*eventFD
	watch   sync.WaitGroup

	// use is held, for reading, by each use of dev; it is above all other locks here.
	use  sync.RWMutex
	gone atomic.Bool // set with use held: dev is closed

	mapMu sync.Mutex // guards what bars have of the guest's address space, and unmap
	shut  bool       // nothing is mapped any more; guarded by mapMu
	irq   interrupts
}

// New makes a Function of dev, which it owns, also after an error. Nobody has used the device since Open.
func New(dev *Device, c Config) (*Function, error) {
	f, err := newFunction(dev, c)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", dev.address, err)
	}
	return f, nil
}

func newFunction(dev backend, c Config) (*Function, error) {
	f := &Function{c: c, dev: dev}
	f.irq.f = f
	f.cfg = pci.NewPassedConfig(f, func() { f.metrics.configRefused.Add(1) })
	if err := f.build(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Function) build() error {
	r := f.dev.regionOf(regionConfig)
	space := f.start[:min(r.size, pci.ConfigSize)]
	if len(space) < headerSpace {
		return fmt.Errorf("its configuration space has %d bytes", r.size)
	}
	if err := f.dev.read(regionConfig, 0, space); err != nil {
		return fmt.Errorf("read configuration space: %w", err)
	}
	if err := f.header(); err != nil {
		return err
	}
	if err := f.capabilities(); err != nil {
		return err
	}
	if len(space) == pci.ConfigSize {
		f.extended()
	}
	if err := f.addBARs(); err != nil {
		return err
	}
	if err := f.watchEvents(); err != nil {
		return err
	}
	f.irq.fall()
	return f.writeCommand()
}

// Config is the configuration space that the guest sees.
func (f *Function) Config() *pci.Config { return f.cfg }

// with calls use unless the device is gone, and reports its error.
func (f *Function) with(use func() error) bool {
	f.use.RLock()
	defer f.use.RUnlock()
	if f.gone.Load() {
		return false
	}
	if err := use(); err != nil {
		f.report(err)
		return false
	}
	return true
}

func (f *Function) report(err error) {
	if err != nil && f.c.Report != nil {
		f.c.Report(err)
	}
}

// ReadConfig implements pci.Space: what a device does not answer reads as ones.
func (f *Function) ReadConfig(off int, b []byte) {
	f.metrics.configReads.Add(1)
	if !f.with(func() error { return f.dev.read(regionConfig, uint64(off), b) }) {
		pci.Ones(b)
	}
}

// WriteConfig implements pci.Space.
func (f *Function) WriteConfig(off int, b []byte) {
	f.metrics.configWrites.Add(1)
	f.with(func() error { return f.dev.write(regionConfig, uint64(off), b) })
}

// functionReset resets the function on an access of the guest's: all that the guest has set up is forgotten.
func (f *Function) functionReset() {
	f.resetDevice()
	f.cfg.Reset()
	f.afterReset()
}

// BusReset follows a reset of the bus that the function is on: its Config has been reset.
func (f *Function) BusReset() {
	f.resetDevice()
	f.afterReset()
}

func (f *Function) resetDevice() {
	f.metrics.resets.Add(1)
	f.irq.off()
	f.with(f.dev.reset)
}

// afterReset brings all in line with a Config that was reset.
func (f *Function) afterReset() {
	f.restoreDefaults()
	if f.msix != nil {
		f.msix.Reset()
	}
	f.irq.fall()
	f.report(f.writeCommand())
}

// Abandon lets go of the device: accesses give all ones from then on, and the device is the
// host's. The guest may use the Function all the same, and does so until Close.
func (f *Function) Abandon() error {
	f.cfg.Vanish()
	f.irq.off()
	err := f.unmapAll(true)
	f.use.Lock()
	defer f.use.Unlock()
	if f.gone.Swap(true) {
		return err
	}
	for _, e := range f.events {
		err = errors.Join(err, e.Close())
	}
	return errors.Join(err, f.closeAreas(), f.dev.close())
}

// Close resets the device and gives it back. Nobody uses the Function any more.
func (f *Function) Close() error {
	err := f.Abandon()
	f.watch.Wait()
	if f.msix != nil {
		err = errors.Join(err, f.msix.Close())
	}
	if f.msi != nil {
		err = errors.Join(err, f.msi.Close())
	}
	return errors.Join(err, f.irq.close())
}
