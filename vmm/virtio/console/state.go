package console

import (
	"bytes"
	"fmt"
)

// A State is what a console holds for the guest.
type State struct {
	// Input is what was typed and not yet taken.
	Input []byte `json:"input,omitempty"`
	// Ports are the console's own and the named ones, where there are any of those.
	Ports []PortState `json:"ports,omitempty"`
}

// A PortState is what the driver knows of a port, and is yet to be told. Clients are not
// part of it: a driver is told that they have left.
type PortState struct {
	Add       bool   `json:"add,omitempty"`
	Ready     bool   `json:"ready,omitempty"`
	About     bool   `json:"about,omitempty"`
	Connected bool   `json:"connected,omitempty"`
	Open      bool   `json:"open,omitempty"`
	Sent      uint64 `json:"sent,omitempty"` // bytes of the first chain that are done with
}

func (n *news) save() PortState {
	return PortState{Add: n.add, Ready: n.ready, About: n.about, Connected: n.told}
}

func (s *PortState) news() news {
	return news{add: s.Add, ready: s.Ready, about: s.About, told: s.Connected}
}

// Save returns the state of a console that is not active.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := State{Input: bytes.Clone(d.rest)}
	if len(d.ports) == 0 {
		return s
	}
	s.Ports = append(s.Ports, d.console.save())
	for _, p := range d.ports {
		one := p.news.save()
		one.Open, one.Sent = p.open, p.sent
		s.Ports = append(s.Ports, one)
	}
	return s
}

// Restore takes the state of a console made alike.
func (d *Device) Restore(s State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := len(d.ports); (want > 0 || len(s.Ports) > 0) && len(s.Ports) != want+1 {
		return fmt.Errorf("state of a console with %d ports, this one has %d: %w", len(s.Ports), want+1, ErrConfig)
	}
	d.rest = bytes.Clone(s.Input)
	if len(s.Ports) == 0 {
		return nil
	}
	d.console = s.Ports[0].news()
	for i, p := range d.ports {
		p.end(p.client)
		one := &s.Ports[i+1]
		p.news, p.open, p.sent, p.sentTo = one.news(), one.Open, one.Sent, nil
	}
	return nil
}
