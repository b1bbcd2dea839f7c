package machine

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/device/i6300esb"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// The machine pauses, counts and closes the watchdog as it does other devices.
var _ interface {
	pauser
	counter
	io.Closer
} = (*i6300esb.Watchdog)(nil)

// Where the watchdog of a guest without disks is: behind entropy, console and balloon, and the
// only 32-bit BAR.
const (
	watchdogConfig = 1<<31 | 4<<11
	watchdogBAR    = arch.MMIO32Base
)

// starve is code that switches its watchdog on, with stages as short as can be.
func starve(c tinykernel.Code) tinykernel.Code {
	le := binary.LittleEndian
	config := func(reg, value uint32) {
		c = append(c, 0x66, 0xba, 0xf8, 0x0c, 0xb8)              // mov dx, 0xcf8; mov eax,
		c = append(le.AppendUint32(c, watchdogConfig|reg), 0xef) // register; out dx, eax
		c = c.Out16(0xcfc, uint16(value))
	}
	write := func(reg uint32, v uint32) {
		c = le.AppendUint32(append(c, 0xbb), watchdogBAR+reg) // mov ebx, address
		c = le.AppendUint32(append(c, 0xc7, 0x03), v)         // mov dword [rbx], v
	}
	config(4, 2) // memory decoding
	for _, timer := range []uint32{0, 4} {
		write(0xc, 0x80)
		write(0xc, 0x86)
		write(timer, 1)
	}
	config(0x60, 1<<2)
	config(0x68, 1<<1)
	return c
}

func TestBoardEnds(t *testing.T) {
	panics := tinykernel.Code{}.Out(arch.PortPanic, 1)
	for _, tt := range []struct {
		name  string
		board *protocol.Board
		code  tinykernel.Code
		want  protocol.Reason
	}{
		{"watchdog resets", &protocol.Board{Watchdog: protocol.ResetAction}, starve(nil).Spin(), protocol.WatchdogExpired},
		{"watchdog of one that idles", &protocol.Board{Watchdog: protocol.PowerOffAction}, starve(nil).Idle(), protocol.WatchdogExpired},
		{"no watchdog", nil, starve(nil).PowerOff(), protocol.PoweredOff},
		{"panic resets", &protocol.Board{OnPanic: protocol.ResetAction}, panics.Spin(), protocol.Panicked},
		{"panic switches off", &protocol.Board{OnPanic: protocol.PowerOffAction}, panics.Spin(), protocol.Panicked},
		{"crash kernel", &protocol.Board{OnPanic: protocol.ResetAction}, tinykernel.Code{}.Out(arch.PortPanic, 2).PowerOff(), protocol.PoweredOff},
		{"panic left alone", &protocol.Board{OnPanic: protocol.NoAction}, panics.PowerOff(), protocol.PoweredOff},
		{"panic without a wish", nil, panics.PowerOff(), protocol.PoweredOff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tt.code)
			s.Board = tt.board
			g := s.loaded(t)
			start(t, g)
			if got := ended(t, g); got.Reason != tt.want {
				t.Errorf("result = %+v, want %s", got, tt.want)
			}
			left := tt.want == protocol.PoweredOff && bytes.HasPrefix(tt.code, panics)
			if st := g.Status(); st.Panicked.IsZero() == left {
				t.Errorf("status = %+v", st)
			}
		})
	}
}

// A watchdog that does nothing but count counts once until it is fed.
func TestWatchdogCounts(t *testing.T) {
	s := newSpec(t, starve(nil).Idle())
	s.Board = &protocol.Board{Watchdog: protocol.NoAction}
	g := s.loaded(t)
	start(t, g)
	for end := time.Now().Add(20 * time.Second); g.Counters().Devices["watchdog.expiries"] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("counters = %v", g.Counters().Devices)
		}
	}
	if st := g.Status(); st.State != protocol.Running {
		t.Errorf("status = %+v", st)
	}
	if n := g.Counters().Devices; n["watchdog.expiries"] != 1 || n["watchdog.reloads"] != 0 {
		t.Errorf("counters = %v", n)
	}
}

// Each start has a generation ID of its own, in memory that the kernel is told to leave alone.
func TestGenerationID(t *testing.T) {
	var ids [2][16]byte
	for i := range ids {
		g := newSpec(t, tinykernel.Code{}.Halt()).loaded(t)
		if err := g.mem.ReadAt(arch.GenerationID, ids[i][:]); err != nil {
			t.Fatal(err)
		}
		reserved := false
		for _, r := range memoryMap(g.mem, 1<<20) {
			reserved = reserved || r.Type != 1 && r.Base <= arch.GenerationID && arch.GenerationID+16 <= r.Base+r.Size
		}
		if !reserved {
			t.Error("the generation ID is in memory that the kernel takes")
		}
	}
	if ids[0] == ids[1] || ids[0] == [16]byte{} || arch.GenerationID%8 != 0 {
		t.Errorf("generation IDs %x", ids)
	}
}

func TestBoardRefused(t *testing.T) {
	for field, b := range map[string]protocol.Board{
		"board.watchdog":     {Watchdog: "x"},
		"board.onPanic":      {OnPanic: "x"},
		"board.serialNumber": {SerialNumber: "\x7f"},
	} {
		s := newSpec(t, tinykernel.Code{}.Halt())
		s.Board = &b
		if g, err := FromSpec(&s.Spec, s.files); err == nil || err.Field != field || err.Code != protocol.InvalidArgument {
			t.Errorf("%+v: %v, want a refusal of %s", b, err, field)
			if g != nil {
				g.Close()
			}
		}
	}
}

// A bare machine has no devices but those that were asked for.
func TestBare(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.Spin())
	s.Board = &protocol.Board{Bare: true, Watchdog: protocol.NoAction}
	g := s.loaded(t)
	start(t, g)
	if len(g.devices) != 1 || g.devices[0].name != "watchdog" {
		t.Errorf("%d devices, the first is %s", len(g.devices), g.devices[0].name)
	}
	if err := g.SetBalloon(0); err != nil {
		t.Error(err)
	}
	if err := g.SetBalloon(4096); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("SetBalloon = %v, want FailedPrecondition", err)
	}
	if got := g.Balloon(); got.TargetBytes != 0 || got.ActualBytes != 0 || got.Statistics != nil || !got.StatisticsTime.IsZero() {
		t.Errorf("balloon = %+v", got)
	}
	if f, err := g.ConnectPort("agent"); f != nil || err == nil || err.Code != protocol.InvalidArgument || err.Field != "portName" {
		t.Errorf("ConnectPort = %v, %v", f, err)
	}
	for field, change := range map[string]func(*protocol.Spec){
		"ports":        func(s *protocol.Spec) { s.Ports = []protocol.Port{{Name: "agent"}} },
		"balloonBytes": func(s *protocol.Spec) { s.BalloonBytes = 4096 },
	} {
		s := newSpec(t, tinykernel.Code{}.Spin())
		s.Board = &protocol.Board{Bare: true}
		change(&s.Spec)
		if g, err := FromSpec(&s.Spec, s.files); g != nil || err == nil || err.Field != field || err.Code != protocol.InvalidArgument {
			t.Errorf("%s of a bare machine: %v", field, err)
		}
	}
}
