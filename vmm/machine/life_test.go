package machine

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
)

// nmiCode is a guest that runs first, prints "r", runs the endless loop, and
// prints "n" for each NMI.
func nmiCode(first tinykernel.Code) tinykernel.Code {
	const idt, stack = 0x3000000, 0x3010000
	le := binary.LittleEndian
	store := func(c tinykernel.Code, at, v uint32) tinykernel.Code { // mov dword [at], v
		return le.AppendUint32(le.AppendUint32(append(c, 0xc7, 0x04, 0x25), at), v)
	}
	build := func(handler uint32) (code tinykernel.Code, end int) {
		c := tinykernel.Code(le.AppendUint32([]byte{0x48, 0xc7, 0xc4}, stack)) // mov rsp, stack
		c = store(c, idt+2*16, handler&0xffff|0x10<<16)                        // vector 2: CS 0x10,
		c = store(c, idt+2*16+4, handler&^0xffff|0x8e00)                       // an interrupt gate
		c = store(c, idt+0x100, 3*16-1)
		c = store(c, idt+0x102, idt)
		c = le.AppendUint32(append(c, 0x0f, 0x01, 0x1c, 0x25), idt+0x100) // lidt
		c = append(c, first...)
		c = c.Print("r").Spin()
		return append(c.Print("n"), 0x48, 0xcf), len(c) // iretq
	}
	const entry = tinykernel.Pref + 0x200
	_, end := build(0)
	code, _ := build(uint32(entry + end))
	return code
}

// read reads n bytes from the console within a time.
func read(t *testing.T, v io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(v, b); err != nil {
		t.Fatalf("console: %v", err)
	}
	return string(b)
}

// TestNMI sends NMIs to a guest of two processors, the second of which was never
// started: it must neither get one nor be woken by it.
func TestNMI(t *testing.T) {
	s := newSpec(t, nmiCode(nil))
	s.VCPUs = 2
	g := s.loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := g.NMI(); !errors.Is(err, ErrState) {
		t.Errorf("NMI before the start: %v, want ErrState", err)
	}
	start(t, g)
	if got := read(t, v, 1); got != "r" {
		t.Fatalf("the guest says %q", got)
	}
	for range 3 {
		if err := g.NMI(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, v, 1); got != "n" {
			t.Errorf("after an NMI the guest says %q", got)
		}
	}
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := g.NMI(); !errors.Is(err, ErrState) {
		t.Errorf("NMI to a paused guest: %v, want ErrState", err)
	}
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // for a second vCPU that would spin
	c := g.Counters().VCPUs
	// KVM counts one again that it has to inject once more.
	if n := c["nmi_injections"]; len(n) != 2 || n[0] < 3 || n[1] != 0 {
		t.Errorf("nmi_injections = %v, want 3 or more, and 0", n)
	}
	if n := c["user_interrupts"]; len(n) != 2 || n[1] > 100 {
		t.Errorf("user_interrupts = %v: the second vCPU does not sleep", n)
	}
}

// TestNMIMasked has a guest that masks LINT1, as one does that wants no NMIs.
func TestNMIMasked(t *testing.T) {
	mask := tinykernel.Code{0xbb, 0x60, 0x03, 0xe0, 0xfe, 0xc7, 0x03, 0x00, 0x04, 0x01, 0x00} // mov dword [0xfee00360], 0x10400
	g := newSpec(t, nmiCode(mask)).loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	start(t, g)
	read(t, v, 1)
	if err := g.NMI(); !errors.Is(err, errDeaf) {
		t.Errorf("NMI to a guest that masks them: %v", err)
	}
}

func TestReset(t *testing.T) {
	for _, paused := range []bool{false, true} {
		g := newSpec(t, tinykernel.Code{}.Spin()).loaded(t)
		if err := g.Reset(); !errors.Is(err, ErrState) {
			t.Errorf("Reset before the start: %v, want ErrState", err)
		}
		start(t, g)
		if paused {
			if err := g.Pause(); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Reset(); err != nil {
			t.Fatal(err)
		}
		if got := ended(t, g); got.Reason != protocol.Reset {
			t.Errorf("paused %v: result = %+v, want reset", paused, got)
		}
		if err := g.Reset(); !errors.Is(err, ErrState) {
			t.Errorf("Reset of a guest that has ended: %v, want ErrState", err)
		}
		if err := g.NMI(); !errors.Is(err, ErrState) {
			t.Errorf("NMI to a guest that has ended: %v, want ErrState", err)
		}
	}
}

// TestConsoleWhilePaused looks at the console of a paused guest: what was printed
// is there, and what is typed waits for the guest.
func TestConsoleWhilePaused(t *testing.T) {
	// in al, 0x3fd; test al, 1; jz back; in al, 0x3f8; out 0x3f8, al
	echo := tinykernel.Code{0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee}
	g := newSpec(t, append(tinykernel.Code{}.Print("ready"), echo...).PowerOff()).loaded(t)
	first, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	start(t, g)
	read(t, first, 5)
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if got := read(t, v, 5); got != "ready" {
		t.Errorf("console of a paused guest = %q", got)
	}
	if _, err := io.WriteString(v, "x"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if st := g.Status(); st.State != protocol.Paused {
		t.Errorf("status = %+v", st)
	}
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, v, 1); got != "x" {
		t.Errorf("echo = %q", got)
	}
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v", got)
	}
}

// TestCounters reads a guest's counters while it runs.
func TestCounters(t *testing.T) {
	c := tinykernel.Code{}.Print(".")
	s := newSpec(t, append(c, 0xeb, byte(-len(c)-2)))
	s.VCPUs = 2
	g := s.loaded(t)
	start(t, g)
	var last uint64
	for range 3 {
		for deadline := time.Now().Add(10 * time.Second); g.Counters().VCPUs["user_io_exits"][0] <= last; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("user_io_exits does not grow")
			}
		}
		last = g.Counters().VCPUs["user_io_exits"][0]
	}
	if h := g.Histograms(); len(h) != 0 || blk.Buckets > protocol.HistogramBuckets {
		t.Errorf("histograms of no disks = %v; a disk has %d buckets, a message %d", h, blk.Buckets, protocol.HistogramBuckets)
	}
	n := g.Counters()
	if len(n.VCPUs["exits"]) != 2 || n.VCPUs["exits"][0] < last || n.VCPUs["user_io_exits"][1] != 0 {
		t.Errorf("counters = %v", n.VCPUs)
	}
	for _, name := range []string{"entropy.kicks", "entropy.interrupts", "console.trapped_kicks"} {
		if v, ok := n.Devices[name]; !ok || v != 0 {
			t.Errorf("%s = %d, %v, want 0", name, v, ok)
		}
	}
}
