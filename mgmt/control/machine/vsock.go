package machine

import (
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

// Connectable refuses a machine whose ports cannot be connected to now.
func (m *Machine) Connectable() error {
	m.mu.Lock()
	without := !m.gone && !m.rec.Vsock
	m.mu.Unlock()
	if without {
		return refuse.Precondition(refuse.NoVsock, m.Name(), m.Name()+" has no socket device: make it with one (vsock)")
	}
	return m.askable("", true)
}
