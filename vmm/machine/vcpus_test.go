package machine

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Places that hotCode uses.
const (
	apCode  = 0x8000    // of what a second processor runs: its SIPI vector is 8
	apCount = 0x3000000 // counted up by it, for ever
	goOn    = 0x3000010 // the first processor starts the second when this is not 0
)

// store writes a double word: mov dword [at], v.
func store(c tinykernel.Code, at, v uint32) tinykernel.Code {
	c = binary.LittleEndian.AppendUint32(append(c, 0xc7, 0x04, 0x25), at)
	return binary.LittleEndian.AppendUint32(c, v)
}

// hotCode waits for goOn, starts the processor with APIC ID 1 by INIT and SIPI, prints
// "s", and waits again. What it starts counts at apCount.
func hotCode() tinykernel.Code {
	le := binary.LittleEndian
	// 16 bits: mov ax, 0x1000; mov ds, ax; inc dword [0]; jmp back. apCount is out of
	// reach of real mode: the count is at 0x10000.
	ap := []byte{0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x00, 0x00, 0xeb, 0xf9, 0x90, 0x90, 0x90, 0x90}
	var c tinykernel.Code
	for i := 0; i < len(ap); i += 4 {
		c = store(c, apCode+uint32(i), le.Uint32(ap[i:]))
	}
	top := len(c)
	// cmp dword [goOn], 0; je to itself
	c = append(le.AppendUint32(append(c, 0x83, 0x3c, 0x25), goOn), 0, 0x74, 0xf6)
	c = store(c, goOn, 0)
	icr := func(c tinykernel.Code, low uint32) tinykernel.Code {
		for _, w := range [][2]uint32{{0xfee00310, 1 << 24}, {0xfee00300, low}} {
			c = append(le.AppendUint32(append(c, 0xbb), w[0]), 0xc7, 0x03) // mov ebx, register; mov dword [rbx],
			c = le.AppendUint32(c, w[1])
		}
		return c
	}
	c = icr(icr(c, 0x4500), 0x4600|apCode>>12).Print("s")
	return le.AppendUint32(append(c, 0xe9), uint32(top-len(c)-5)) // jmp top
}

// hotGuest is a guest of hotCode that runs, with one of most processors; the last of them
// runs on the first CPU.
func hotGuest(t *testing.T, most int) (g *Guest, start1 func()) {
	t.Helper()
	s := newSpec(t, hotCode())
	s.MaxVCPUs = most
	s.Affinity = []protocol.Affinity{{VCPUs: []int{most - 1}, CPUs: []int{firstCPU(t)}}}
	g = s.loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	start(t, g)
	return g, func() {
		t.Helper()
		if err := g.Memory().Store32(goOn, 1); err != nil {
			t.Fatal(err)
		}
		if got := read(t, v, 1); got != "s" {
			t.Fatalf("the guest says %q", got)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

// counts waits until the second processor has counted on.
func counts(t *testing.T, g *Guest) {
	t.Helper()
	count := func() uint32 {
		v, err := g.Memory().Load32(0x10000)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	from := count()
	eventually(t, "counting", func() bool { return count() != from })
}

// out makes the guest's access to a port.
func (g *Guest) out(port uint16, b ...byte) { g.ports.Out(port, b) }

// eject is what a guest's _EJ0 does.
func (g *Guest) eject(cpu byte) {
	g.out(arch.PortCPUs+acpi.CPUSelect, cpu, 0, 0, 0)
	g.out(arch.PortCPUs+acpi.CPUControl, acpi.CPUEject)
}

// threads waits until n vCPUs have threads.
func threads(t *testing.T, g *Guest, n int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.live != n && g.state != protocol.Stopped {
		g.changed.Wait()
	}
	if g.live != n {
		t.Errorf("%d vCPUs have threads, want %d", g.live, n)
	}
}

func vcpusAre(t *testing.T, g *Guest, want protocol.VCPUs) {
	t.Helper()
	if got := g.Status().VCPUs; got == nil || *got != want {
		t.Errorf("VCPUs = %+v, want %+v", got, want)
	}
}

// TestPlugVCPU lets a second processor come, run, be paused, go and come again.
func TestPlugVCPU(t *testing.T) {
	g, start1 := hotGuest(t, 3)
	threads(t, g, 1)
	if n := len(g.Counters().VCPUs["user_io_exits"]); n != 1 {
		t.Errorf("counters of %d vCPUs, want those of one", n)
	}
	for range 3 {
		if err := g.SetVCPUs(2); err != nil {
			t.Fatal(err)
		}
		vcpusAre(t, g, protocol.VCPUs{Present: 2, Target: 2})
		start1()
		counts(t, g)
		if err := g.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := g.SetVCPUs(3); err != nil { // which is parked at once
			t.Fatal(err)
		}
		threads(t, g, 3)
		eventually(t, "running", func() bool { return g.runners[2].tid.Load() != 0 })
		if got, want := allowed(t, g.runners[2].tid.Load()), fmt.Sprint(firstCPU(t)); got != want {
			t.Errorf("a vCPU that comes may run on CPUs %s, want %s", got, want)
		}
		if err := g.Resume(); err != nil {
			t.Fatal(err)
		}
		counts(t, g)
		if n := len(g.Counters().VCPUs["exits"]); n != 3 {
			t.Errorf("counters of %d vCPUs, want 3", n)
		}
		if err := g.SetVCPUs(1); err != nil {
			t.Fatal(err)
		}
		vcpusAre(t, g, protocol.VCPUs{Present: 3, Target: 1})
		g.eject(2)
		g.eject(1)
		threads(t, g, 1)
		vcpusAre(t, g, protocol.VCPUs{Present: 1, Target: 1})
		if s, err := g.runners[1].cpu.MPState(); err != nil || s != kvm.Uninitialized {
			t.Errorf("a vCPU that was given up is in state %d, %v", s, err)
		}
	}
}

// One that is given up as it is wanted again starts anew.
func TestVCPUWantedAgain(t *testing.T) {
	g, start1 := hotGuest(t, 2)
	if err := g.SetVCPUs(2); err != nil {
		t.Fatal(err)
	}
	start1()
	counts(t, g)
	if err := g.SetVCPUs(1); err != nil {
		t.Fatal(err)
	}
	g.out(arch.PortCPUs+acpi.CPUSelect, 1, 0, 0, 0)
	g.out(arch.PortCPUs+acpi.CPUControl, acpi.CPURemove)
	if err := g.SetVCPUs(2); err != nil {
		t.Fatal(err)
	}
	g.eject(1)
	vcpusAre(t, g, protocol.VCPUs{Present: 2, Target: 2})
	eventually(t, "reset", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return !g.runners[1].ejected
	})
	start1()
	counts(t, g)
}

// A guest whose last processor that was awake is given up has halted for good, and
// questions to all do not wait for one that has gone.
func TestHaltWithoutPlugged(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.Halt())
	s.MaxVCPUs = 4
	g := s.loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.Halted {
		t.Errorf("result = %+v, want halted", got)
	}
	if err := g.SetVCPUs(2); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("SetVCPUs of a guest that has ended: %v", err)
	}
}

// TestSetVCPUsRefused asks for what cannot be.
func TestSetVCPUsRefused(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.Spin())
	s.VCPUs = 2
	fixed := s.loaded(t)
	start(t, fixed)
	if err := fixed.SetVCPUs(1); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("SetVCPUs of a guest with vCPUs for good: %v", err)
	}
	vcpusAre(t, fixed, protocol.VCPUs{Present: 2, Target: 2})
	g, _ := hotGuest(t, 2)
	for _, n := range []int{-1, 0, 3, 1 << 30} {
		if err := g.SetVCPUs(n); err == nil || err.Field != "vcpus" {
			t.Errorf("SetVCPUs(%d) = %v", n, err)
		}
	}
	for _, most := range []int{-1, 1, 129} {
		s := newSpec(t, tinykernel.Code{}.Halt())
		s.VCPUs, s.MaxVCPUs = 2, most
		if g, err := FromSpec(&s.Spec, s.files); err == nil {
			g.Close()
			t.Errorf("%d vCPUs at most were taken", most)
		} else if err.Field != "maxVcpus" {
			t.Errorf("%d vCPUs at most: %+v", most, err)
		}
	}
}

// TestMostPlugged lets all processors of the largest machine come at once.
func TestMostPlugged(t *testing.T) {
	g, _ := hotGuest(t, MaxVCPUs)
	if err := g.SetVCPUs(MaxVCPUs); err != nil {
		t.Fatal(err)
	}
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	threads(t, g, MaxVCPUs)
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := g.SetVCPUs(1); err != nil {
		t.Fatal(err)
	}
	for i := range MaxVCPUs {
		g.eject(byte(i)) // the first stays
	}
	threads(t, g, 1)
	vcpusAre(t, g, protocol.VCPUs{Present: 1, Target: 1})
	g.Stop()
	if got := ended(t, g); got.Reason != protocol.Killed {
		t.Errorf("result = %+v, want killed", got)
	}
}
