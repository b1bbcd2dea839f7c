package cpus

import (
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// A rig is a Block, and what it has switched.
type rig struct {
	*Block
	on     []bool
	raised int
}

func newRig(t testing.TB, count, present int) *rig {
	r := &rig{on: make([]bool, count)}
	for i := range present {
		r.on[i] = true
	}
	turn := func(i int, on bool) {
		if r.on[i] == on {
			t.Errorf("processor %d is %v already", i, on)
		}
		r.on[i] = on
	}
	r.Block = New(Config{Count: count, Present: present, Raise: func() { r.raised++ },
		Start: func(i int) { turn(i, true) }, Stop: func(i int) { turn(i, false) }})
	return r
}

func (r *rig) choose(i uint32) { r.Out(acpi.CPUSelect, binary.LittleEndian.AppendUint32(nil, i)) }

func (r *rig) status(i uint32) byte {
	r.choose(i)
	var b [1]byte
	r.In(acpi.CPUControl, b[:])
	return b[0]
}

func (r *rig) write(i uint32, v byte) {
	r.choose(i)
	r.Out(acpi.CPUControl, []byte{v})
}

func (r *rig) ost(i, event, status uint32) {
	r.choose(i)
	r.Out(acpi.CPUOSTEvent, binary.LittleEndian.AppendUint32(nil, event))
	r.Out(acpi.CPUOSTStatus, binary.LittleEndian.AppendUint32(nil, status))
}

func (r *rig) want(t *testing.T, s State, status ...byte) {
	t.Helper()
	if got := r.State(); got != s {
		t.Errorf("State = %+v, want %+v", got, s)
	}
	for i, want := range status {
		if got := r.status(uint32(i)); got != want {
			t.Errorf("processor %d: status %#b, want %#b", i, got, want)
		}
		if on := want&acpi.CPUEnabled != 0; r.on[i] != on {
			t.Errorf("processor %d is on: %v", i, r.on[i])
		}
	}
}

const (
	here = acpi.CPUEnabled
	come = acpi.CPUEnabled | acpi.CPUInsert
	goes = acpi.CPUEnabled | acpi.CPURemove
)

func TestComeAndGo(t *testing.T) {
	r := newRig(t, 4, 1)
	r.want(t, State{Present: 1, Highest: 1, Target: 1}, here, 0, 0, 0)
	r.SetTarget(3)
	if r.raised != 1 {
		t.Errorf("raised %d times", r.raised)
	}
	r.want(t, State{Present: 3, Highest: 3, Target: 3}, here, come, come, 0)
	r.write(1, acpi.CPUInsert)
	r.write(2, acpi.CPUInsert)
	r.SetTarget(2)
	r.want(t, State{Present: 3, Highest: 3, Target: 2}, here, here, goes, 0)
	r.write(2, acpi.CPURemove)
	r.write(2, acpi.CPUEject)
	r.ost(2, acpi.NotifyEjectRequest, acpi.OSTSuccess)
	r.want(t, State{Present: 2, Highest: 2, Target: 2}, here, here, 0, 0)
	r.SetTarget(4)
	r.want(t, State{Present: 4, Highest: 4, Target: 4}, here, here, come, come)
}

// A guest that says no is heard, and asked again only when somebody does.
func TestRefused(t *testing.T) {
	r := newRig(t, 3, 3)
	r.SetTarget(1)
	r.write(1, acpi.CPURemove)
	r.write(2, acpi.CPURemove)
	r.ost(2, acpi.NotifyEjectRequest, acpi.OSTEjectInProgress)
	r.want(t, State{Present: 3, Highest: 3, Target: 1}, here, here, here)
	r.ost(2, acpi.NotifyEjectRequest, 0x82)
	r.ost(1, acpi.NotifyDeviceCheck, 0x82)
	r.want(t, State{Present: 3, Highest: 3, Target: 1, Refused: 1})
	r.write(1, acpi.CPUEject)
	r.want(t, State{Present: 2, Highest: 3, Target: 1, Refused: 1}, here, 0, here)
	r.SetTarget(1)
	r.want(t, State{Present: 2, Highest: 3, Target: 1}, here, 0, goes)
}

// One that is wanted again before the guest has given it up stays, or comes back.
func TestChangeOfMind(t *testing.T) {
	r := newRig(t, 3, 3)
	r.SetTarget(1)
	r.write(2, acpi.CPURemove) // the guest has seen one of both
	r.SetTarget(3)
	r.want(t, State{Present: 3, Highest: 3, Target: 3}, here, here, here)
	raised := r.raised
	r.write(2, acpi.CPUEject)
	r.want(t, State{Present: 3, Highest: 3, Target: 3}, here, here, come)
	if r.raised == raised {
		t.Error("nothing says that it came back")
	}
	r.write(1, acpi.CPUEject) // of its own will
	r.want(t, State{Present: 2, Highest: 3, Target: 3}, here, 0, come)
}

// The first processor stays, and one that does not exist is none.
func TestNotThere(t *testing.T) {
	r := newRig(t, 2, 1)
	r.write(0, 0xff)
	r.write(1, acpi.CPUEject)
	r.want(t, State{Present: 1, Highest: 1, Target: 1}, here, 0)
	for _, i := range []uint32{2, 1 << 31, 0xffffffff} {
		r.write(i, 0xff)
		r.ost(i, acpi.NotifyEjectRequest, 1)
		if got := r.status(i); got != 0 {
			t.Errorf("processor %d: status %#x", i, got)
		}
	}
	r.Out(acpi.CPUSelect+2, []byte{1, 2})
	if got := r.status(0); got != here {
		t.Errorf("status = %#x", got)
	}
}

// FuzzBlock lets a guest write at will while somebody asks for processors: there is
// always one, those that are on are those that are there, and none is switched twice.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{0x80, 3, 0, 1, 4, 2, 0, 1, 4, 8})
	f.Add([]byte{0x80, 1, 0, 2, 4, 4, 8, 3, 12, 1, 0x80, 4, 4, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t, 4, 2)
		for ; len(b) >= 2; b = b[2:] {
			at, v := b[0], b[1]
			size := 4
			if at%16 == acpi.CPUControl {
				size = 1
			}
			switch {
			case at&0x80 != 0:
				r.SetTarget(1 + int(v)%4)
			case at&0x40 != 0:
				p := make([]byte, 1<<(v%3))
				r.In(uint16(at%16)&^uint16(len(p)-1), p)
			default:
				p := make([]byte, size)
				p[0] = v
				r.Out(uint16(at%16)&^uint16(size-1), p)
			}
		}
		n := 0
		for i, on := range r.on {
			if here := r.cpus[i].present; here != on {
				t.Errorf("processor %d is there: %v, on: %v", i, here, on)
			}
			if on {
				n++
			}
		}
		if s := r.State(); s.Present != n || !r.on[0] || s.Refused > s.Present {
			t.Errorf("State = %+v of %v", s, r.on)
		}
	})
}
