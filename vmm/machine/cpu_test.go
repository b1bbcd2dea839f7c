package machine

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// TestMostVCPUs makes, runs, pauses and frees the largest machine there is, in
// several shapes: one whose APIC IDs have gaps among them.
func TestMostVCPUs(t *testing.T) {
	for _, cpu := range []*protocol.CPU{nil, {Sockets: 2, Cores: 32, Threads: 2}, {Model: "x86-64-v1", Sockets: 42, Cores: 3}} {
		n := MaxVCPUs
		if cpu != nil && cpu.Cores == 3 {
			n = 126
		}
		t.Run(fmt.Sprint(n, cpu), func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Spin())
			s.VCPUs, s.CPU = n, cpu
			g := s.loaded(t)
			start(t, g)
			if err := g.Pause(); err != nil {
				t.Fatal(err)
			}
			if err := g.Resume(); err != nil {
				t.Fatal(err)
			}
			last := g.runners[n-1].cpu.ID()
			if want := g.c.CPU.Topology.APICID(n - 1); last != want {
				t.Errorf("the last vCPU has APIC ID %d, want %d", last, want)
			}
			g.Stop()
			if got := ended(t, g); got.Reason != protocol.Killed {
				t.Errorf("result = %+v, want killed", got)
			}
		})
	}
}

// cpuid stores EAX to EDX of a leaf at an address below 2 GiB.
func cpuid(c tinykernel.Code, leaf uint32, index, at byte) tinykernel.Code {
	c = append(c, 0xb8, byte(leaf), byte(leaf>>8), byte(leaf>>16), byte(leaf>>24)) // mov eax, leaf
	c = append(c, 0xb9, index, 0, 0, 0, 0x0f, 0xa2)                                // mov ecx, index; cpuid
	c = append(c, 0x89, 0x04, 0x25, at, 0, 0, 3)                                   // mov [0x3000000+at], eax
	c = append(c, 0x89, 0x1c, 0x25, at+4, 0, 0, 3)                                 // ebx
	c = append(c, 0x89, 0x0c, 0x25, at+8, 0, 0, 3)                                 // ecx
	return append(c, 0x89, 0x14, 0x25, at+12, 0, 0, 3)                             // edx
}

// A guest sees the topology that it was given, and how fast its TSC is.
func TestGuestSeesTopology(t *testing.T) {
	c := cpuid(cpuid(cpuid(cpuid(tinykernel.Code{}, 0xb, 0, 0), 0xb, 1, 16), 1, 0, 32), 0x40000000, 0, 48)
	s := newSpec(t, c.PowerOff())
	poll := uint64(50_000)
	s.VCPUs, s.CPU = 12, &protocol.CPU{Sockets: 2, Threads: 2, HaltPollNs: &poll}
	g := s.loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Fatalf("result = %+v", got)
	}
	var got [16]uint32
	for i := range got {
		v, err := g.Memory().Load32(0x3000000 + 4*uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		got[i] = v
	}
	if got[0] != 1 || got[1] != 2 || got[2] != 1<<8 || got[3] != 0 || got[4] != 3 || got[5] != 6 || got[6] != 2<<8|1 {
		t.Errorf("leaf 0xb = %x, want cores of 2 threads and sockets of 6", got[:7])
	}
	if got[9]>>24 != 0 || got[11]>>28&1 != 1 {
		t.Errorf("leaf 1 = %x, want APIC ID 0 and HTT", got[8:12])
	}
	if got[12] != 0x40000001 && got[12] != 0x40000010 || got[13] != 0x4b4d564b {
		t.Errorf("leaf 0x40000000 = %x, want KVM's", got[12:])
	}
}

func TestCPURefused(t *testing.T) {
	tooLong := uint64(protocol.HaltPollLimit + 1)
	for _, tt := range []struct {
		name  string
		vcpus int
		cpu   protocol.CPU
		field string
		code  protocol.ErrorCode
	}{
		{"topology", 4, protocol.CPU{Cores: 3}, "cpu", protocol.InvalidArgument},
		{"APIC IDs", 125, protocol.CPU{Sockets: 5, Threads: 5}, "cpu", protocol.InvalidArgument},
		{"halt polling", 1, protocol.CPU{HaltPollNs: &tooLong}, "cpu.haltPollNs", protocol.InvalidArgument},
		{"model", 1, protocol.CPU{Model: "486"}, "cpu.model", protocol.InvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Halt())
			s.VCPUs, s.CPU = tt.vcpus, &tt.cpu
			s.refused(t, tt.code, tt.field)
		})
	}
}

// A model or an interface that this host cannot give is refused with what is missing;
// where it can, the machine runs.
func TestCPUOfThisHost(t *testing.T) {
	for field, cpu := range map[string]protocol.CPU{
		"cpu.model":  {Model: "x86-64-v4"},
		"cpu.hyperv": {HyperV: true},
	} {
		s := newSpec(t, tinykernel.Code{}.PowerOff())
		s.CPU = &cpu
		g, err := FromSpec(&s.Spec, s.files)
		if err != nil {
			if err.Field != field || err.Code != protocol.Unavailable || !strings.ContainsAny(err.Message, ":") {
				t.Errorf("FromSpec = %+v, want one at %s", err, field)
			}
			continue
		}
		if err := g.Load(); err != nil {
			t.Errorf("Load = %v", err)
		} else {
			start(t, g)
			if got := ended(t, g); got.Reason != protocol.PoweredOff {
				t.Errorf("%s: result = %+v", field, got)
			}
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The largest machine stays within the descriptors and threads that its process
// may have (vmm/jail, protocol.Threads).
func TestLargestMachineFitsItsLimits(t *testing.T) {
	const files = 1024
	s := newSpec(t, tinykernel.Code{}.Spin())
	s.VCPUs = MaxVCPUs
	s.HotplugSlots = protocol.MaxHotplugSlots
	for i := range maxDisksAndNICs - 1 {
		f, err := os.Create(fmt.Sprintf("%s/disk%d", t.TempDir(), i))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		s.Disks = append(s.Disks, protocol.Disk{File: s.add(f, nil)})
	}
	count := func(dir string) int {
		es, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	g := s.loaded(t)
	start(t, g)
	if err := g.Pause(); err != nil { // all vCPUs have their threads
		t.Fatal(err)
	}
	if n := count("/proc/self/fd"); n > files {
		t.Errorf("%d descriptors open, at most %d", n, files)
	}
	if n := count("/proc/self/task"); n > protocol.Threads(s.VCPUs) {
		t.Errorf("%d threads, at most %d", n, protocol.Threads(s.VCPUs))
	}
	t.Logf("%d descriptors, %d threads", count("/proc/self/fd"), count("/proc/self/task"))
}

// Where guests have the TSC's deadlines there is no power management timer.
func TestPMTimer(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.Halt())
	s.CPU = &protocol.CPU{TSCDeadline: true}
	g := s.loaded(t)
	var b [4]byte
	if g.ports.In(arch.PortTimer, b[:]); b != [4]byte{0xff, 0xff, 0xff, 0xff} {
		t.Errorf("it reads % x", b)
	}
}
