package machine

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/device/i6300esb"
	"github.com/ashlar-hv/ashlar/vmm/device/pvpanic"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// notes are what has been told of the guest, once: it may make it happen as often as it likes.
// core reads the lines, and asks for the Status then.
type notes struct {
	expired, crashLoaded bool
	panicked             time.Time
	full, failed         protocol.DiskSet
}

// note writes a line to core's log.
func note(what string) { fmt.Fprintln(os.Stderr, "ashlar-vmm: guest:", what) }

// addPanicPort makes the port at which the guest tells of a panic.
func (m *Machine) addPanicPort() error {
	return m.ports.Add(arch.PortPanic, pvpanic.Ports, pvpanic.Port{Event: m.panicEvent})
}

// panicEvent follows what the guest's kernel tells of its panic.
func (m *Machine) panicEvent(event byte) {
	if event == pvpanic.CrashLoaded {
		if m.first(&m.notes.crashLoaded) {
			note("its kernel has panicked, a crash kernel takes over")
		}
		return
	}
	if a := m.c.Board.OnPanic; a == protocol.ResetAction || a == protocol.PowerOffAction {
		m.end(protocol.Panicked, "")
		return
	}
	m.mu.Lock()
	first := m.notes.panicked.IsZero()
	if first {
		m.notes.panicked = time.Now().UTC()
	}
	m.mu.Unlock()
	if first {
		note("its kernel has panicked, and is left alone")
	}
}

// first sets what, and says whether it was not set.
func (m *Machine) first(what *bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *what
	*what = true
	return !before
}

// addWatchdog plugs in the watchdog, where there is to be one. before is whether it has ended
// the run before.
func (m *Machine) addWatchdog(before bool) error {
	if m.c.Board.Watchdog == "" {
		return nil
	}
	w, err := i6300esb.New(i6300esb.Config{Expired: m.watchdogExpired, Before: before})
	if err != nil {
		return fmt.Errorf("make watchdog: %w", err)
	}
	return m.AddDevice("watchdog", w)
}

// watchdogExpired follows a guest that has not fed its watchdog.
func (m *Machine) watchdogExpired(after time.Duration) {
	if m.c.Board.Watchdog != protocol.NoAction {
		m.end(protocol.WatchdogExpired, fmt.Sprintf("not fed for %v", after.Round(time.Second/10)))
		return
	}
	if m.first(&m.notes.expired) {
		note(fmt.Sprintf("it has not fed its watchdog for %v, and is left alone; further times are only counted", after.Round(time.Second/10)))
	}
}

// writeGenerationID gives this start of the guest an identifier that no other has.
func (m *Machine) writeGenerationID() error {
	var id [16]byte
	// So few bytes come whole (getrandom(2)).
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return fmt.Errorf("make generation ID: %w", err)
	}
	if err := m.mem.WriteAt(arch.GenerationID, id[:]); err != nil {
		return fmt.Errorf("write generation ID: %w", err)
	}
	return nil
}

// checkBoard checks what a Spec says of the board.
func checkBoard(s *protocol.Spec) *protocol.Error {
	if field, wrong := s.Board.Check(); wrong != "" {
		return invalid("board."+field, "%s %s", field, wrong)
	}
	switch bare := s.Board.Get().Bare; {
	case bare && len(s.Ports) > 0:
		return invalid("ports", "%d serial ports of a bare machine, which has no virtio console for them", len(s.Ports))
	case bare && s.BalloonBytes > 0:
		return invalid("balloonBytes", "a balloon of %d bytes in a bare machine, which has none", s.BalloonBytes)
	}
	return nil
}

// addBoardDevices plugs in what the Spec asks for.
func (g *Guest) addBoardDevices(s *protocol.Spec) *protocol.Error {
	if err := g.addWatchdog(s.WatchdogExpired); err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Field: "board.watchdog", Message: err.Error()}
	}
	return nil
}
