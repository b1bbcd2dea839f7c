package machine

import "github.com/ashlar-hv/ashlar/vmm/protocol"

// SetLink tells the guest whether the link of network device i is up, whether it runs or
// is paused.
func (m *Machine) SetLink(i int, up bool) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if s := m.Status().State; s == protocol.Stopped {
		return &protocol.Error{Code: protocol.FailedPrecondition, Message: stateError("set a link of", s).Error()}
	}
	if i < 0 || i >= len(m.nics) {
		return invalid("nic", "network device %d of a guest with %d of them", i, len(m.nics))
	}
	m.nics[i].SetLink(up)
	return nil
}
