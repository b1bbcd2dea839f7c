package transport

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// activate hands the queues to the device: the driver is ready. t.mu is held.
// While the machine is paused it waits for Resume.
func (t *Transport) activate() {
	if t.active || t.paused {
		return
	}
	life := t.status.life()
	a := virtio.Activation{
		Features:      t.accepted,
		Memory:        t.mem,
		Queues:        make([]*virtio.Queue, len(t.queues)),
		Broken:        func(err error) { t.breakLife(life, err) },
		ConfigChanged: t.configChanged,
	}
	for i, q := range t.queues {
		if !q.enabled {
			continue
		}
		live, err := q.open(t.accepted)
		if err != nil {
			t.broken(err)
			return
		}
		a.Queues[i] = live
	}
	if err := t.dev.Activate(a); err != nil {
		for _, q := range t.queues {
			q.setOnCall(nil)
			q.live = nil
		}
		t.broken(err)
		return
	}
	t.active = true
}

// deactivate takes the queues back and remembers how far they came. t.mu is held.
func (t *Transport) deactivate() {
	if !t.active {
		return
	}
	for _, q := range t.queues {
		q.setOnCall(nil)
	}
	t.dev.Deactivate()
	t.active = false
	for _, q := range t.queues {
		if q.live != nil {
			q.config.Start = q.live.Config.Start
			q.live = nil
		}
	}
}

// reset is the driver writing 0 to the status register. It returns when no
// request is under way any more. t.mu is held.
func (t *Transport) reset() {
	t.deactivate()
	t.resetRegisters()
	if r, ok := t.dev.(virtio.Resetter); ok {
		r.Reset()
	}
}

// BusReset implements pci.Resetter: the driver's reset, and that of the vectors.
func (t *Transport) BusReset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
	t.msix.Reset()
}

// Lingers implements pci.Lingerer. A driver that resets the device has to wait for a
// status of 0 (section 4.1.4.3.2), and Linux's waits for ever, also for a device that was
// pulled out, where that reads as ones. Its slot would be lost to the guest.
func (t *Transport) Lingers() {}

func (t *Transport) resetRegisters() {
	t.status.reset(0)
	t.isr.Store(0)
	t.featureSelect, t.driverSelect, t.accepted = 0, 0, 0
	t.configVector.Store(virtio.NoVector)
	t.queueSelect = 0
	for _, q := range t.queues {
		q.reset()
	}
}

// broken makes the device need a reset in its present life.
func (t *Transport) broken(err error) { t.breakLife(t.status.life(), err) }

// breakLife makes the device need a reset, tells the driver, and logs it once
// (section 2.1.2). It takes no lock that Deactivate is waited for under.
func (t *Transport) breakLife(life uint64, err error) {
	if !t.status.needsReset(life) {
		return
	}
	t.report(fmt.Errorf("needs a reset: %w", err))
	if t.status.load()&virtio.DriverOK != 0 {
		t.configChanged()
	}
}

// configChanged tells the driver that the configuration, or NEEDS_RESET, is new.
func (t *Transport) configChanged() {
	t.generation.Add(1)
	t.signal(uint16(t.configVector.Load()), isrConfig, eventfd.Signal)
}

// Pause ends the data path for a while, once no request is under way any more.
// It is called with all vCPUs paused.
func (t *Transport) Pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = true
	t.deactivate()
}

// Resume undoes Pause.
func (t *Transport) Resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = false
	if s := t.status.load(); s&virtio.DriverOK != 0 && s&virtio.NeedsReset == 0 {
		t.activate()
	}
}
