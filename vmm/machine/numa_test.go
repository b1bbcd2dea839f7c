package machine

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// numaSpec has four vCPUs on two nodes, whose memory is the host's first node's.
func numaSpec(t *testing.T, code tinykernel.Code) *spec {
	t.Helper()
	s := newSpec(t, code)
	s.VCPUs = 4
	s.NUMA = []protocol.NUMANode{
		{VCPUs: []int{0, 1}, MemoryBytes: 16 << 20, HostNodes: []int{0}},
		{VCPUs: []int{2, 3}, MemoryBytes: testMemory - 16<<20, HostNodes: []int{0}, Distances: []int{30, 10}},
	}
	return s
}

// allowed are the CPUs that a thread of this process may run on.
func allowed(t *testing.T, tid int32) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// firstCPU is the first that this process may run on.
func firstCPU(t *testing.T) (cpu int) {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for !all.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// vCPUs run on the CPUs that they are given, others anywhere.
func TestAffinity(t *testing.T) {
	cpu := firstCPU(t)
	anywhere := allowed(t, int32(unix.Gettid()))
	s := numaSpec(t, tinykernel.Code{}.Idle())
	s.Affinity = []protocol.Affinity{{VCPUs: []int{2, 3}, CPUs: []int{cpu}}}
	g := s.loaded(t)
	start(t, g)
	for i, r := range g.runners {
		for r.tid.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		want := anywhere
		if i >= 2 {
			want = fmt.Sprint(cpu)
		}
		if got := allowed(t, r.tid.Load()); got != want {
			t.Errorf("vCPU %d may run on CPUs %s, want %s", i, got, want)
		}
	}
	g.Stop()
	if got := ended(t, g); got.Reason != protocol.Killed {
		t.Errorf("result = %+v", got)
	}
}

// A vCPU that comes while the guest runs does so on the CPUs of its node, also when it comes
// again, and is in the tables from the start.
func TestAffinityComesAndGoes(t *testing.T) {
	const cpu = "0"
	s := newSpec(t, tinykernel.Code{}.Idle())
	s.MaxVCPUs = 4
	s.NUMA = []protocol.NUMANode{{VCPUs: []int{0, 1}, MemoryBytes: 16 << 20}, {VCPUs: []int{2, 3}, MemoryBytes: testMemory - 16<<20}}
	s.Affinity = []protocol.Affinity{{VCPUs: []int{2, 3}, CPUs: []int{0}}}
	g := s.loaded(t)
	if nodes, err := g.nodes(); err != nil || !slices.Equal(nodes[1].CPUs, []uint8{2, 3}) {
		t.Errorf("nodes = %+v, %v", nodes, err)
	}
	start(t, g)
	for range 3 {
		if err := g.SetVCPUs(4); err != nil {
			t.Fatal(err)
		}
		threads(t, g, 4)
		for _, i := range []int{2, 3} {
			r := g.runners[i]
			eventually(t, "running", func() bool { return r.tid.Load() != 0 })
			if got := allowed(t, r.tid.Load()); got != cpu {
				t.Errorf("vCPU %d may run on CPUs %s, want %s", i, got, cpu)
			}
		}
		if err := g.SetVCPUs(1); err != nil {
			t.Fatal(err)
		}
		for cpu := byte(3); cpu >= 1; cpu-- {
			g.eject(cpu)
		}
		threads(t, g, 1)
	}
	g.Stop()
	if got := ended(t, g); got.Reason != protocol.Killed {
		t.Errorf("result = %+v", got)
	}
}

// The threads of a machine that is never started end with it.
func TestAffinityNotStarted(t *testing.T) {
	s := numaSpec(t, tinykernel.Code{}.Idle())
	s.Affinity = []protocol.Affinity{{VCPUs: []int{0, 1, 2, 3}, CPUs: []int{0}}}
	s.loaded(t)
}

// What the tables say of the nodes; each is a socket.
func TestNodes(t *testing.T) {
	g := numaSpec(t, tinykernel.Code{}.Idle()).loaded(t)
	got, err := g.nodes()
	want := []acpi.Node{
		{CPUs: []uint8{0, 1}, Memory: []acpi.Window{{Base: 0, Size: 16 << 20}}, Distances: []uint8{10, 20}},
		{CPUs: []uint8{2, 3}, Memory: []acpi.Window{{Base: 16 << 20, Size: 48 << 20}}, Distances: []uint8{30, 10}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("nodes = %v, (-want +got):\n%s", err, d)
	}
	if n := g.c.CPU.Topology.Sockets; n != 2 {
		t.Errorf("%d sockets, want 2", n)
	}
}

// refused has no machine be made of s.
func (s *spec) refused(t *testing.T, code protocol.ErrorCode, field string) {
	t.Helper()
	g, err := FromSpec(&s.Spec, s.files)
	if err == nil {
		g.Close()
		t.Fatal("FromSpec succeeded")
	}
	if err.Field != field || err.Code != code || err.Message == "" {
		t.Errorf("FromSpec = %+v, want %s at %q", err, code, field)
	}
}

// notAGroup cannot be written to.
func notAGroup(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNUMARefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*spec)
		code   protocol.ErrorCode
		field  string
	}{
		{"no such node of the host", func(s *spec) { s.NUMA[1].HostNodes = []int{1023} }, protocol.FailedPrecondition, "numa"},
		{"memory", func(s *spec) { s.NUMA[1].MemoryBytes = 16 << 20 }, protocol.InvalidArgument, "numa"},
		{"threads", func(s *spec) {
			s.CPU = &protocol.CPU{Threads: 2}
			s.NUMA[0].VCPUs, s.NUMA[1].VCPUs = []int{0, 2}, []int{1, 3}
		}, protocol.InvalidArgument, "numa[1].vcpus"},
		{"access of a node", func(s *spec) { s.NodeAccess = make([][]protocol.Access, 1) }, protocol.InvalidArgument, "nodeAccess"},
		{"access to a node", func(s *spec) { s.NodeAccess = make([][]protocol.Access, 2) }, protocol.InvalidArgument, "nodeAccess[0]"},
		{"no such vCPU", func(s *spec) { s.Affinity = []protocol.Affinity{{VCPUs: []int{4}, CPUs: []int{0}}} }, protocol.InvalidArgument, "affinity[0].vcpus"},
		{"a vCPU twice", func(s *spec) { s.Affinity = []protocol.Affinity{{VCPUs: []int{1, 1}, CPUs: []int{0}}} }, protocol.InvalidArgument, "affinity[0].vcpus"},
		{"no CPU", func(s *spec) { s.Affinity = []protocol.Affinity{{VCPUs: []int{1}}} }, protocol.InvalidArgument, "affinity[0].cpus"},
		{"no such CPU", func(s *spec) { s.Affinity = []protocol.Affinity{{CPUs: []int{-1}}} }, protocol.InvalidArgument, "affinity[0].cpus"},
		{"a CPU that the host has not", func(s *spec) {
			s.Affinity = []protocol.Affinity{{VCPUs: []int{1}, CPUs: []int{protocol.MaxHostCPU}}}
		}, protocol.Unavailable, ""},
		{"no group", func(s *spec) {
			at := protocol.File(len(s.files))
			s.files, s.VCPUGroup = append(s.files, notAGroup(t)), &at
			s.Affinity = []protocol.Affinity{{VCPUs: []int{1}, CPUs: []int{0}}}
		}, protocol.Unavailable, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := numaSpec(t, tinykernel.Code{}.Halt())
			tt.change(s)
			s.refused(t, tt.code, tt.field)
		})
	}
}
