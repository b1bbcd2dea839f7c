package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Files in a running guest's folder.
const (
	recordName  = "guest.json"
	socketName  = "control.sock"
	resultName  = "result"
	messageName = "messages" // what the VMM writes to its descriptor 2
)

const (
	maxResult  = 4 << 10 // bytes
	maxMessage = 160     // bytes of a message from a VMM that are kept
)

// A record is what core needs to know about a VMM that runs, on the run
// file system: a core that is started again finds it there. It is written
// before the first thing is made that has to be undone.
type record struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// PID and StartTime (clock ticks since boot) are the VMM's; together they
	// never come again. 0 while it is being started.
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"`
	// Slot gives the VMM's user and its taps' names.
	Slot        int    `json:"slot"`
	MemoryBytes uint64 `json:"memoryBytes"`
	// Pages are what the memory is made of.
	Pages protocol.Pages `json:"pages,omitempty"`
	VCPUs int            `json:"vcpus"` // that it can come to have
	// NUMA are the nodes that its memory is shared out to.
	NUMA []protocol.NUMANode `json:"numa,omitempty"`
	// Placed is where it is on the host.
	Placed *hostcall.Placed `json:"placed,omitempty"`
	// MaxPlugged is how much memory may be plugged in besides; Requested is what the guest
	// is asked to have of it, and Plugged what it may have: more, until it has given it back.
	MaxPlugged uint64             `json:"maxPlugged,omitempty"`
	Requested  uint64             `json:"requested,omitempty"`
	Plugged    uint64             `json:"plugged,omitempty"`
	NICs       []folder.Interface `json:"nics,omitempty"`
	// Rates is what the disks may do, by their numbers.
	Rates map[int]diskRate `json:"rates,omitempty"`
	// HotplugSlots is how many the VMM has.
	HotplugSlots int `json:"hotplugSlots,omitempty"`
	// VFIO is whether it may have devices of the host's; DeviceEvent is the number of the last
	// event of theirs that is noted.
	VFIO        bool   `json:"vfio,omitempty"`
	DeviceEvent uint64 `json:"deviceEvent,omitempty"`
	// Leased are the addresses that the guest has taken, in order of NICs.
	Leased []string `json:"leased,omitempty"`
	// CID is that of its socket device; 0 where it has none.
	CID uint32 `json:"cid,omitempty"`
	// Counted is what limits that NICs do not have any more have counted, by the number of
	// the NIC.
	Counted map[int]map[string]uint64 `json:"counted,omitempty"`
	Started time.Time                 `json:"started"`
}

// uid is the user and group that the VMM runs as.
func (r *record) uid() uint32 { return uint32(layout.GuestUIDBase + r.Slot) }

// tap is the name of the tap of the NIC of that number.
func (r *record) tap(i int) string { return fmt.Sprintf("gtap%d-%d", r.Slot, i) }

func (r *record) check(id string) error {
	switch {
	case r.ID != id:
		return fmt.Errorf("is that of %q", r.ID)
	case r.Slot < 0 || r.Slot >= layout.GuestUIDCount:
		return fmt.Errorf("has slot %d", r.Slot)
	case len(r.Leased) != len(r.NICs):
		return fmt.Errorf("has %d leases for %d NICs", len(r.Leased), len(r.NICs))
	case r.CID != 0 && (r.CID < protocol.MinCID || r.CID > protocol.MaxCID):
		return fmt.Errorf("has CID %d", r.CID)
	}
	return nil
}

// decodeRecord reads a record of guest id.
func decodeRecord(b []byte, id string) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("guest record: %w", err)
	}
	if err := r.check(id); err != nil {
		return record{}, fmt.Errorf("guest record: %w", err)
	}
	hostcall.Number(r.NICs, nicNumber)
	return r, nil
}

func (m *Manager) writeRecord(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write guest record: %w", err)
	}
	return folder.WriteFile(m.runPath(r.ID, recordName), b)
}

func (m *Manager) runPath(id string, name ...string) string {
	return filepath.Join(append([]string{m.c.RunDir, id}, name...)...)
}

// startTime reads when process pid began (proc_pid_stat(5), field 22).
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("look up process: %w", err)
	}
	return parseStartTime(string(b))
}

func parseStartTime(stat string) (uint64, error) {
	// The name, field 2, may contain anything, parentheses too.
	_, rest, ok := cutLast(stat, ")")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return 0, errors.New("look up process: stat has another form")
	}
	n, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("look up process: %w", err)
	}
	return n, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// readResult reads what a VMM has left before its end. A VMM may be in the
// guest's hands: nothing of it is taken over unchecked.
func readResult(path string) (protocol.Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return protocol.Result{}, err
	}
	defer f.Close()
	b := make([]byte, maxResult)
	n, err := f.ReadAt(b, 0)
	if n == 0 && err != nil {
		return protocol.Result{}, err
	}
	return decodeResult(b[:n])
}

func decodeResult(b []byte) (protocol.Result, error) {
	var r protocol.Result
	if err := json.Unmarshal(b, &r); err != nil {
		return protocol.Result{}, fmt.Errorf("result: %w", err)
	}
	known := []protocol.Reason{protocol.PoweredOff, protocol.Reset, protocol.Halted,
		protocol.TripleFault, protocol.Killed, protocol.Failed, protocol.WatchdogExpired, protocol.Panicked}
	if !slices.Contains(known, r.Reason) {
		return protocol.Result{}, errors.New("result: unknown reason")
	}
	r.Message = clean(r.Message)
	return r, nil
}

// clean makes a short printable line of s, of as many bytes in JSON as in Go:
// else a hostile VMM's message could make a list too long to be sent.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c < ' ' || c > '~' || c == '<' || c == '>' || c == '&':
			return ' '
		case c == '"' || c == '\\':
			return '\''
		}
		return c
	}, s[:min(len(s), maxMessage)])
	return strings.TrimSpace(s)
}

// writeEnd keeps how the guest ended, for a core that is started again.
func (m *Manager) writeEnd(s hostcall.GuestStatus) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep end of guest: %w", err)
	}
	return folder.WriteFile(filepath.Join(m.c.EndDir, s.ID), b)
}

func (m *Manager) removeEnd(id string) {
	if err := os.Remove(filepath.Join(m.c.EndDir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.c.Log.Warn("cannot forget end of guest", "guest", id, "error", err)
	}
}

// readEnds reads how guests ended before core was started.
func (m *Manager) readEnds() error {
	entries, err := os.ReadDir(m.c.EndDir)
	if err != nil {
		return fmt.Errorf("read ends of guests: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(m.c.EndDir, e.Name())
		b, err := os.ReadFile(path)
		var s hostcall.GuestStatus
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil || s.ID != e.Name() || !m.c.Folders.Exists(s.ID) {
			os.Remove(path)
			continue
		}
		m.ended[s.ID] = s
	}
	return nil
}
