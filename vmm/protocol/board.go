package protocol

import (
	"fmt"
	"slices"
	"strings"
)

// Reasons that the devices on board give.
const (
	WatchdogExpired Reason = "watchdog" // its watchdog was not fed, and is to end it
	Panicked        Reason = "panicked" // its kernel panicked, and that is to end it
)

// An Action is what follows when a watchdog expires or a guest panics.
type Action string

// Actions. ResetAction and PowerOffAction end the guest, with the Reason WatchdogExpired or
// Panicked; whoever started it is to start it again after the first of them.
const (
	NoAction       Action = "none"
	ResetAction    Action = "reset"
	PowerOffAction Action = "power-off"
)

// Actions lists all of them.
func Actions() []string {
	return []string{string(NoAction), string(ResetAction), string(PowerOffAction)}
}

// MaxSerialNumber is the most bytes of Board.SerialNumber.
const MaxSerialNumber = 64

// A Board says what the devices on board are to do. The zero Board, and nil, is what a
// guest has without any wish.
type Board struct {
	// Watchdog is what its expiry leads to; without it there is no watchdog.
	Watchdog Action `json:"watchdog,omitempty"`
	// OnPanic is what a panic of the guest's kernel leads to: "" is NoAction.
	OnPanic Action `json:"onPanic,omitempty"`
	// SerialNumber is for SMBIOS: up to MaxSerialNumber printable ASCII characters, no space
	// first or last. "" is none.
	SerialNumber string `json:"serialNumber,omitempty"`
	// Bare leaves out what a guest has without being asked for: the devices for entropy, the virtio console
	// and the balloon. It has no ports then, and gives no memory back by itself.
	Bare bool `json:"bare,omitempty"`
}

// Get is b, or the zero Board.
func (b *Board) Get() Board {
	if b == nil {
		return Board{}
	}
	return *b
}

// Check says what is wrong with b, by its field.
func (b *Board) Check() (field, wrong string) {
	board := b.Get()
	for _, a := range []struct {
		field string
		is    Action
	}{{"watchdog", board.Watchdog}, {"onPanic", board.OnPanic}} {
		if a.is != "" && !slices.Contains(Actions(), string(a.is)) {
			return a.field, fmt.Sprintf("is %q: choose from %s", a.is, strings.Join(Actions(), ", "))
		}
	}
	s := board.SerialNumber
	switch {
	case len(s) > MaxSerialNumber:
		return "serialNumber", fmt.Sprintf("has %d bytes: at most %d", len(s), MaxSerialNumber)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return "serialNumber", "has a character that is not printable ASCII: leave it out"
	case strings.TrimSpace(s) != s:
		return "serialNumber", "has a space at an end: leave it out"
	}
	return "", ""
}
