package transport

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// A State is all that a guest can change in a Transport; the device behind it
// has a state of its own.
type State struct {
	ID            virtio.ID       `json:"id"`
	PCI           pci.ConfigState `json:"pci"`
	MSIX          pci.MSIXState   `json:"msix"`
	Status        virtio.Status   `json:"status"`
	ISR           uint32          `json:"isr"`
	Generation    uint32          `json:"generation"`
	FeatureSelect uint32          `json:"featureSelect"`
	DriverSelect  uint32          `json:"driverSelect"`
	Accepted      virtio.Features `json:"accepted"`
	ConfigVector  uint16          `json:"configVector"`
	QueueSelect   uint16          `json:"queueSelect"`
	Queues        []QueueState    `json:"queues"`
}

// A QueueState is the registers and indexes of one queue.
type QueueState struct {
	Config  queue.Config `json:"config"`
	Enabled bool         `json:"enabled"`
	Vector  uint16       `json:"vector"`
}

// Save returns the state of a paused transport.
func (t *Transport) Save() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := State{
		ID: t.dev.ID(), PCI: t.cfg.Save(), MSIX: t.msix.Save(), Status: t.status.load(),
		ISR: t.isr.Load(), Generation: t.generation.Load(),
		FeatureSelect: t.featureSelect, DriverSelect: t.driverSelect, Accepted: t.accepted,
		ConfigVector: uint16(t.configVector.Load()), QueueSelect: t.queueSelect,
	}
	for _, q := range t.queues {
		q.mu.Lock()
		s.Queues = append(s.Queues, QueueState{Config: q.config, Enabled: q.enabled, Vector: q.vector})
		q.mu.Unlock()
	}
	return s
}

// Restore puts s, from a transport made alike, into t, which is left paused:
// Resume starts it. The Bus maps BARs afterwards (pci.Bus.Restored).
func (t *Transport) Restore(s State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.ID != t.dev.ID() || len(s.Queues) != len(t.queues) || s.Accepted&^t.offered != 0 {
		return fmt.Errorf("restore %s: %w", t.name, ErrState)
	}
	t.deactivate()
	t.paused = true
	if err := t.cfg.Restore(s.PCI); err != nil {
		return fmt.Errorf("restore %s: %w", t.name, err)
	}
	if err := t.msix.Restore(s.MSIX); err != nil {
		return fmt.Errorf("restore %s: %w", t.name, err)
	}
	t.status.reset(s.Status)
	t.isr.Store(s.ISR)
	t.generation.Store(s.Generation)
	t.featureSelect, t.driverSelect, t.accepted = s.FeatureSelect, s.DriverSelect, s.Accepted
	t.configVector.Store(uint32(t.vector(uint64(s.ConfigVector))))
	t.queueSelect = s.QueueSelect
	for i, q := range t.queues {
		q.config, q.enabled = s.Queues[i].Config, s.Queues[i].Enabled
		q.setVector(t.vector(uint64(s.Queues[i].Vector)))
	}
	return nil
}
