package vfio

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// A mode is the kind of interrupts that a device is set up for: the kernel has one at a time.
type mode int

const (
	none mode = iota
	modeINTx
	modeMSI
	modeMSIX
)

// index is the mode's number among the kinds of interrupts.
func (m mode) index() int { return int(m) - 1 }

// interrupts are what the device is set up for.
type interrupts struct {
	f *Function

	mu                sync.Mutex // below the locks of MSI-X and of the bus, above those of vectors
	intx              bool       // the device has INTx; set once
	mode              mode
	trigger, resample *os.File    // of INTx, made when first needed
	fds               map[int]int // of MSI-X vectors that the device signals
	allocated         int         // vectors of MSI-X that the kernel has for sure
}

// off ends all interrupts.
func (q *interrupts) off() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.disable()
}

// disable is off; mu is held.
func (q *interrupts) disable() {
	if q.mode == none {
		return
	}
	q.f.with(func() error { return q.f.dev.disableIRQs(q.mode.index()) })
	if q.mode == modeINTx {
		q.f.report(q.f.c.Line.Disconnect(q.trigger))
	}
	q.mode, q.fds, q.allocated = none, nil, 0
}

// fall sets up what there is when MSI-X is off: MSI where the guest has turned that on, else INTx.
// The bus's lock is held, or nobody else knows the Function.
func (q *interrupts) fall() {
	if q.f.msi != nil {
		q.f.msi.update()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mode == none && q.intx {
		q.f.report(q.connect())
	}
}

// connect sets up INTx; mu is held. The kernel masks the interrupt when it has signalled it,
// and unmasks it when the guest has handled it.
func (q *interrupts) connect() error {
	var err error
	if q.trigger == nil {
		if q.trigger, err = blockingEventFD("vfio-intx"); err != nil {
			return err
		}
	}
	if q.resample == nil {
		if q.resample, err = blockingEventFD("vfio-intx-resample"); err != nil {
			return err
		}
	}
	if err := q.f.c.Line.Connect(q.trigger, q.resample); err != nil {
		return err
	}
	ok := q.f.with(func() error {
		if err := q.f.dev.setIRQs(irqINTx, 0, int(q.trigger.Fd())); err != nil {
			return err
		}
		if err := q.f.dev.unmaskBy(int(q.resample.Fd())); err != nil {
			return errors.Join(err, q.f.dev.disableIRQs(irqINTx))
		}
		return nil
	})
	if !ok {
		return q.f.c.Line.Disconnect(q.trigger)
	}
	q.mode = modeINTx
	return nil
}

// close frees what INTx had. All interrupts are off.
func (q *interrupts) close() error {
	var errs []error
	for _, e := range []*os.File{q.trigger, q.resample} {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}

// EnableMSIX implements pci.MSIXSource.
func (f *Function) EnableMSIX(on bool) {
	f.irq.mu.Lock()
	f.irq.disable()
	if on {
		// One vector is allocated, and signals nobody: so the device has MSI-X on from now on,
		// and the others can be added.
		if f.with(func() error { return f.dev.setIRQs(irqMSIX, 0, -1) }) {
			f.irq.mode, f.irq.fds, f.irq.allocated = modeMSIX, make(map[int]int), 1
		}
	}
	f.irq.mu.Unlock()
	if !on {
		f.irq.fall()
	}
}

var errOff = errors.New("MSI-X is off")

// OpenMSIX implements pci.MSIXSource.
func (f *Function) OpenMSIX(i int, file *os.File) error {
	q, fd := &f.irq, int(file.Fd())
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mode != modeMSIX {
		return errOff
	}
	if _, ok := q.fds[i]; ok {
		return nil
	}
	f.use.RLock()
	defer f.use.RUnlock()
	if f.gone.Load() {
		return errOff
	}
	if i >= q.allocated && !f.dev.irqOf(irqMSIX).grows {
		return q.again(i, fd)
	}
	if err := f.dev.setIRQs(irqMSIX, i, fd); err != nil {
		return err
	}
	q.fds[i] = fd
	return nil
}

// again sets all vectors up anew, as the kernel cannot add i to those that are; mu is held.
func (q *interrupts) again(i, fd int) error {
	dev := q.f.dev
	if err := dev.disableIRQs(irqMSIX); err != nil {
		return err
	}
	q.allocated = 0
	if err := dev.setIRQs(irqMSIX, i, fd); err != nil {
		return fmt.Errorf("all vectors are off: %w", err)
	}
	q.fds[i], q.allocated = fd, i+1
	for j, fd := range q.fds {
		if err := dev.setIRQs(irqMSIX, j, fd); err != nil {
			return err
		}
	}
	return nil
}
