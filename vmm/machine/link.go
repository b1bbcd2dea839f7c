package machine

import "github.com/ashlar-hv/ashlar/vmm/protocol"

// SetLink tells the guest whether the link of network device n is up, whether it runs or
// is paused.
func (m *Machine) SetLink(n int, up bool) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if s := m.Status().State; s == protocol.Stopped {
		return &protocol.Error{Code: protocol.FailedPrecondition, Message: stateError("set a link of", s).Error()}
	}
	nic := m.nics[n]
	if nic == nil {
		return invalid("nic", "there is no network device %d", n)
	}
	nic.SetLink(up)
	return nil
}
