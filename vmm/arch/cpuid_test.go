package arch

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/processor"
)

var update = flag.Bool("update", false, "write the golden files anew")

const sig = kvm.CPUIDSignificantIndex

// find is the leaf, of which there is to be one.
func find(t *testing.T, es []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	t.Helper()
	var found []kvm.CPUIDEntry
	for _, e := range es {
		if e.Function == function && e.Index == index {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("leaf %#x.%d: %d entries", function, index, len(found))
	}
	return found[0]
}

// kvmLeaves are KVM's own.
var kvmLeaves = []kvm.CPUIDEntry{
	{Function: 0x40000000, EAX: 0x40000001, EBX: 0x4b4d564b, ECX: 0x564b4d56, EDX: 0x4d},
	{Function: 0x40000001, EAX: kvmFeatures | 1<<17}, // and migration control
}

// genoa is what KVM supports on a large AMD host of 8 cores a cache.
func genoa() []kvm.CPUIDEntry {
	return append([]kvm.CPUIDEntry{
		{Function: 0, EAX: 0x10, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
		{Function: 1, EAX: 0xa10f11, EBX: 0x55200800, ECX: 0x77fa3223 | ecxTSCDeadline, EDX: 0x178bfbff},
		{Function: 7, Index: 0, Flags: sig, EAX: 1, EBX: 0xf1bf27ab, ECX: 0x0040575e, EDX: 0xac000010},
		{Function: 7, Index: 1, Flags: sig, EAX: 1 << 5},
		{Function: 0xb, Index: 0, Flags: sig, EAX: 1, EBX: 2, ECX: 1 << 8, EDX: 77},
		{Function: 0xb, Index: 1, Flags: sig, EAX: 8, EBX: 256, ECX: 2<<8 | 1, EDX: 77},
		{Function: 0xd, Index: 0, Flags: sig, EAX: 0x2e7, EBX: 0x988, ECX: 0x988},
		{Function: 0xd, Index: 1, Flags: sig, EAX: 0xf, EBX: 0x348, ECX: 0x1800},
		{Function: 0xd, Index: 2, Flags: sig, EAX: 0x100, EBX: 0x240},
		{Function: 0xd, Index: 5, Flags: sig, EAX: 0x40, EBX: 0x340},
		{Function: 0xd, Index: 6, Flags: sig, EAX: 0x200, EBX: 0x380},
		{Function: 0xd, Index: 7, Flags: sig, EAX: 0x400, EBX: 0x580},
		{Function: 0xd, Index: 9, Flags: sig, EAX: 0x8, EBX: 0x980},
		{Function: 0xd, Index: 11, Flags: sig, EAX: 0x10, ECX: 1},
		{Function: 0xd, Index: 12, Flags: sig, EAX: 0x18, ECX: 1},
		{Function: 0x80000000, EAX: 0x80000021, EBX: 0x68747541},
		{Function: 0x80000001, EAX: 0xa10f11, ECX: 0x004003f7, EDX: 0x2fd3fbff},
		{Function: 0x80000007, EDX: 1 << 8},
		{Function: 0x80000008, EAX: 0x00303930, EBX: 0x791ed205, ECX: 0x707f},
		{Function: 0x8000000a, EAX: 1, EDX: 0xffff},
		{Function: 0x8000001d, Index: 0, Flags: sig, EAX: 0x4121, EBX: 0x01c0003f, ECX: 0x3f},
		{Function: 0x8000001d, Index: 1, Flags: sig, EAX: 0x4122, EBX: 0x01c0003f, ECX: 0x3f},
		{Function: 0x8000001d, Index: 2, Flags: sig, EAX: 0x4143, EBX: 0x01c0003f, ECX: 0x7ff},
		{Function: 0x8000001d, Index: 3, Flags: sig, EAX: 0x3c163, EBX: 0x03c0003f, ECX: 0x7fff},
		{Function: 0x8000001d, Index: 4, Flags: sig},
		{Function: 0x8000001e, EAX: 77, EBX: 0x12a, ECX: 3},
		{Function: 0x8000001f, EAX: 1 << 10, EBX: 0x4133},
		{Function: 0x80000021, EAX: 0x345, ECX: 6},
		{Function: 0x80000026, Index: 0, Flags: sig, EAX: 1, EBX: 2, ECX: 1 << 8, EDX: 77},
	}, kvmLeaves...)
}

// sapphire is what KVM supports on an Intel host with AMX, that of an older
// kernel: the topology leaves are the host's.
func sapphire() []kvm.CPUIDEntry {
	return append([]kvm.CPUIDEntry{
		{Function: 0, EAX: 0x1f, EBX: 0x756e6547, ECX: 0x6c65746e, EDX: 0x49656e69},
		{Function: 1, EAX: 0x806f8, EBX: 0x4d800800, ECX: 0x77fafbff | ecxTSCDeadline, EDX: 0x1f8bfbff},
		{Function: 4, Index: 0, Flags: sig, EAX: 0xfc004121, EBX: 0x02c0003f, ECX: 0x3f},
		{Function: 4, Index: 1, Flags: sig, EAX: 0xfc004122, EBX: 0x01c0003f, ECX: 0x3f},
		{Function: 4, Index: 2, Flags: sig, EAX: 0xfc004143, EBX: 0x03c0003f, ECX: 0x7ff},
		{Function: 4, Index: 3, Flags: sig, EAX: 0xfc1fc163, EBX: 0x0380003f, ECX: 0x1ffff, EDX: 4},
		{Function: 4, Index: 4, Flags: sig},
		{Function: 7, Index: 0, Flags: sig, EAX: 2, EBX: 0xf1bf2fbb, ECX: 0x1b41577e, EDX: 0xafd14410},
		{Function: 7, Index: 1, Flags: sig, EAX: 0x401c30},
		{Function: 7, Index: 2, Flags: sig, EDX: 0x1f},
		{Function: 0xa, EAX: 0x08300802, EDX: 0x603},
		{Function: 0xb, Index: 0, Flags: sig, EAX: 1, EBX: 2, ECX: 1 << 8, EDX: 77},
		{Function: 0xd, Index: 0, Flags: sig, EAX: 0x2e7, EBX: 0xa88, ECX: 0xa88},
		{Function: 0xd, Index: 1, Flags: sig, EAX: 0x1f, EBX: 0xa08, ECX: 0x1800},
		{Function: 0xd, Index: 2, Flags: sig, EAX: 0x100, EBX: 0x240},
		{Function: 0xd, Index: 5, Flags: sig, EAX: 0x40, EBX: 0x440},
		{Function: 0xd, Index: 6, Flags: sig, EAX: 0x200, EBX: 0x480},
		{Function: 0xd, Index: 7, Flags: sig, EAX: 0x400, EBX: 0x680},
		{Function: 0xd, Index: 9, Flags: sig, EAX: 0x8, EBX: 0xa80},
		{Function: 0x1d, Index: 1, Flags: sig, EAX: 0x04002000, EBX: 0x00080040, ECX: 16},
		{Function: 0x1f, Index: 0, Flags: sig, EAX: 1, EBX: 2, ECX: 1 << 8, EDX: 77},
		{Function: 0x80000000, EAX: 0x80000008},
		{Function: 0x80000001, ECX: 0x121, EDX: 0x2c100800},
		{Function: 0x80000007, EDX: 1 << 8},
		{Function: 0x80000008, EAX: 0x3934, EBX: 1 << 9},
	}, kvmLeaves...)
}

func model(t *testing.T, name string, host []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	t.Helper()
	m, err := Model(name, host)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func topology(t *testing.T, sockets, cores, threads int) processor.Topology {
	t.Helper()
	topo, err := processor.NewTopology(sockets*cores*threads, processor.Topology{Sockets: sockets, Cores: cores, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// show is the leaves of a CPU that tell of topology.
func show(es []kvm.CPUIDEntry) string {
	var b strings.Builder
	for _, e := range es {
		switch e.Function {
		case leafFeatures:
			fmt.Fprintf(&b, "  %08x    EBX %08x, HTT %d\n", e.Function, e.EBX, e.EDX>>28&1)
		case leafCache, leafAMDCache:
			if e.EAX&0x1f != 0 {
				fmt.Fprintf(&b, "  %08x.%d  level %d: %d IDs share it, cores %d\n", e.Function, e.Index, e.EAX>>5&7, e.EAX>>14&0xfff+1, e.EAX>>26)
			}
		case leafTopology, leafTopologyV2, leafAMDTopologyV2:
			fmt.Fprintf(&b, "  %08x.%d  shift %d, %d processors, domain %d, ID %d\n", e.Function, e.Index, e.EAX, e.EBX, e.ECX>>8, e.EDX)
		case leafAMDFeatures:
			fmt.Fprintf(&b, "  %08x    CmpLegacy %d\n", e.Function, e.ECX>>1&1)
		case leafAddresses:
			fmt.Fprintf(&b, "  %08x    ECX %08x\n", e.Function, e.ECX)
		case leafAMDTopology:
			fmt.Fprintf(&b, "  %08x    ID %d, core %d of %d threads, node %d, %d a socket\n", e.Function, e.EAX, e.EBX&0xff, e.EBX>>8&0xff+1, e.ECX&0xff, e.ECX>>8&7+1)
		}
	}
	return b.String()
}

func TestTopologyGolden(t *testing.T) {
	for maker, host := range map[string][]kvm.CPUIDEntry{"amd": genoa(), "intel": sapphire()} {
		for _, shape := range [][3]int{{1, 1, 1}, {1, 6, 1}, {1, 1, 2}, {2, 4, 2}, {2, 3, 2}, {4, 1, 1}, {1, 128, 1}, {2, 32, 2}} {
			name := fmt.Sprintf("%s-%dx%dx%d", maker, shape[0], shape[1], shape[2])
			t.Run(name, func(t *testing.T) {
				topo := topology(t, shape[0], shape[1], shape[2])
				m := model(t, processor.HostModel, host)
				var got strings.Builder
				for _, i := range []int{0, topo.Count() / 2, topo.Count() - 1} {
					fmt.Fprintf(&got, "vCPU %d\n%s", i, show(CPUID(m, CPU{Index: i, Topology: topo})))
				}
				file := filepath.Join("testdata", "topology-"+name+".txt")
				if *update {
					if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if got.String() != string(want) {
					t.Errorf("topology:\n%s\nwant:\n%s", got.String(), want)
				}
			})
		}
	}
}

func TestCPUID(t *testing.T) {
	es := CPUID(model(t, "", genoa()), CPU{Topology: topology(t, 1, 6, 1), Index: 5, TSCDeadline: true, TSCKHz: 2600000})
	f := find(t, es, 1, 0)
	if f.ECX&ecxVMX != 0 || f.ECX&ecxX2APIC == 0 || f.ECX&ecxHypervisor == 0 || f.ECX&ecxTSCDeadline == 0 {
		t.Errorf("leaf 1 = %#x, %#x", f.ECX, f.EDX)
	}
	if e := find(t, es, 0x80000001, 0); e.ECX&amdECXSVM != 0 {
		t.Errorf("AMD features = %#x, want none of SVM", e.ECX)
	}
	if e := find(t, es, 0x8000000a, 0); e.EAX|e.EBX|e.ECX|e.EDX != 0 {
		t.Errorf("SVM leaf = %+v, want nothing", e)
	}
	if e := find(t, es, 0x40000000, 0); e.EAX != 0x40000010 || e.EBX != 0x4b4d564b {
		t.Errorf("signature of KVM = %+v", e)
	}
	if e := find(t, es, 0x40000001, 0); e.EAX != kvmFeatures {
		t.Errorf("features of KVM = %#x, want %#x", e.EAX, kvmFeatures)
	}
	if e := find(t, es, 0x40000010, 0); e.EAX != 2600000 || e.EBX != 1000000 {
		t.Errorf("frequencies = %+v", e)
	}
	es = CPUID(model(t, "", genoa()), CPU{Topology: topology(t, 1, 1, 1), NoPVEOI: true})
	if e := find(t, es, 0x40000001, 0); e.EAX != kvmFeatures&^(1<<6) {
		t.Errorf("features of KVM = %#x, want all but PV EOI", e.EAX)
	}
	if e := find(t, es, 1, 0); e.ECX&ecxTSCDeadline != 0 {
		t.Error("TSC deadline where there is none")
	}
	if e := find(t, es, 0x40000000, 0); e.EAX != 0x40000001 {
		t.Errorf("signature of KVM = %+v, want no frequencies", e)
	}
	if !InvariantTSC(genoa()) || InvariantTSC(genoa()[:8]) {
		t.Error("InvariantTSC is wrong")
	}
	if got := PhysBits(genoa()); got != 48 {
		t.Errorf("PhysBits = %d, want 48", got)
	}
	if got := PhysBits(nil); got != 36 {
		t.Errorf("PhysBits of nothing = %d, want 36", got)
	}
}

// features are the names of those that es has.
func features(es []kvm.CPUIDEntry) map[string]bool {
	out := make(map[string]bool)
	for _, w := range featureWords {
		for bit, name := range w.names {
			if name != "" && w.of(es)&(1<<bit) != 0 {
				out[name] = true
			}
		}
	}
	return out
}

// A baseline has its features on both makers' hosts, and no other.
func TestBaselines(t *testing.T) {
	for maker, host := range map[string][]kvm.CPUIDEntry{"amd": genoa(), "intel": sapphire()} {
		for name := range baselines {
			t.Run(maker+" "+name, func(t *testing.T) {
				m := model(t, name, host)
				want, err := baseline(name)
				if err != nil {
					t.Fatal(err)
				}
				if got := features(m); len(got) != len(want) || len(want.missing(m)) > 0 {
					t.Errorf("features are %v, want %v", got, want)
				}
				for _, w := range featureWords {
					if extra := w.of(m) &^ want.mask(w); extra != 0 {
						t.Errorf("leaf %#x.%d register %d has bits %#x besides", w.function, w.index, w.register, extra)
					}
				}
				if got := PhysBits(m); got > baselineBits {
					t.Errorf("physical addresses have %d bits", got)
				}
				if word(m, 7, 0, edx) != word(host, 7, 0, edx)&(1<<10|1<<26|1<<27|1<<28|1<<29|1<<31) {
					t.Errorf("protection from speculation: %#x of %#x", word(m, 7, 0, edx), word(host, 7, 0, edx))
				}
				x := find(t, m, 0xd, 0)
				wantXCR0 := map[string]uint32{"x86-64-v1": 0, "x86-64-v2": 0, "x86-64-v3": 7, "x86-64-v4": 0xe7}[name]
				wantSize := map[string]uint32{"x86-64-v3": 0x340, "x86-64-v4": map[string]uint32{"amd": 0x980, "intel": 0xa80}[maker]}[name]
				if x.EAX != wantXCR0 || x.EDX != 0 || x.ECX != wantSize {
					t.Errorf("leaf 0xd = %+v, want XCR0 %#x of %#x bytes", x, wantXCR0, wantSize)
				}
				for _, e := range m {
					if e.Function == 0xd && e.Index > 1 && x.EAX&(1<<e.Index) == 0 {
						t.Errorf("leaf 0xd.%d is left: %+v", e.Index, e)
					}
					if e.Function > 0xd && e.Function < 0x40000000 {
						t.Errorf("leaf %#x is left", e.Function)
					}
				}
			})
		}
	}
}

// A model never changes what KVM said, and two hosts of a maker agree.
func TestBaselineIsTheSameOnAnOlderHost(t *testing.T) {
	newer, older := genoa(), genoa()
	for _, w := range featureWords {
		if w.passed == 0 {
			set, err := baseline("x86-64-v3")
			if err != nil {
				t.Fatal(err)
			}
			drop(older, w.function, w.index, w.register, ^set.mask(w))
		}
	}
	lookup(older, 0xd, 0).EAX = 7
	a, b := model(t, "x86-64-v3", newer), model(t, "x86-64-v3", older)
	for _, w := range featureWords {
		if x, y := w.of(a), w.of(b); w.passed == 0 && x != y {
			t.Errorf("leaf %#x.%d register %d is %#x and %#x", w.function, w.index, w.register, x, y)
		}
	}
	for i, e := range genoa() {
		if newer[i] != e {
			t.Errorf("Model changed its argument: %+v, was %+v", newer[i], e)
		}
	}
}

func TestModelRefuses(t *testing.T) {
	if _, err := Model("pentium", genoa()); !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), "x86-64-v3") {
		t.Errorf("Model of a pentium = %v, want one that names the models", err)
	}
	old := genoa()
	drop(old, 7, 0, ebx, 1<<5|1<<16)
	drop(old, 1, 0, ecx, 1<<22)
	_, err := Model("x86-64-v3", old)
	var missing *MissingFeaturesError
	if !errors.As(err, &missing) || strings.Join(missing.Features, " ") != "movbe avx2" {
		t.Errorf("Model = %v, want it to name movbe and avx2", err)
	}
	if _, err := Model("x86-64-v2", old); err != nil {
		t.Errorf("Model = %v", err)
	}
}

// Features whose state nobody keeps are not shown: here AMX, which the kernel
// gives only to processes that ask, and AVX-512.
func TestHostModelIsConsistent(t *testing.T) {
	m := model(t, processor.HostModel, sapphire())
	if got := word(m, 7, 0, edx) & tilesEDX; got != 0 {
		t.Errorf("AMX is shown: %#x", got)
	}
	if e := find(t, m, 0x1d, 1); e.EAX != 0 {
		t.Errorf("tiles are shown: %+v", e)
	}
	if e := find(t, m, 0xd, 0); e.EAX != 0x2e7 || e.ECX != 0xa88 || e.EBX != 576 {
		t.Errorf("leaf 0xd = %+v", e)
	}
	host := sapphire()
	lookup(host, 0xd, 0).EAX = 7
	m = model(t, processor.HostModel, host)
	if word(m, 7, 0, ebx)&avx512EBX != 0 || word(m, 7, 0, ecx)&(avx512ECX|pkuBit) != 0 || word(m, 7, 0, ebx)&avx2Bit == 0 {
		t.Errorf("leaf 7 = %+v", find(t, m, 7, 0))
	}
	lookup(host, 1, 0).ECX &^= xsaveBit
	m = model(t, processor.HostModel, host)
	if e := find(t, m, 0xd, 0); e.EAX|e.EBX|e.ECX != 0 || word(m, 1, 0, ecx)&avxBit != 0 {
		t.Errorf("without XSAVE: leaf 0xd = %+v, leaf 1 = %+v", e, find(t, m, 1, 0))
	}
}

func TestHyperV(t *testing.T) {
	hv := HyperV([]kvm.CPUIDEntry{
		{Function: 0x40000000, EAX: 0x40000082, EBX: 0x756e694c},
		{Function: 0x40000001, EAX: 0x31237648},
		{Function: 0x40000002, EAX: 0x3839, EBX: 0xa0000},
		{Function: 0x40000003, EAX: 0xffff, EBX: 0xffff, EDX: 0xffffffff},
		{Function: 0x40000004, EAX: 0xffffffff},
		{Function: 0x40000005, EAX: 1024, EBX: 64},
		{Function: 0x4000000a, EAX: 1},
		{Function: 0x40000080, EAX: 1},
	})
	es := CPUID(model(t, processor.HostModel, sapphire()), CPU{Topology: topology(t, 1, 2, 1), TSCKHz: 1000000, HyperV: hv})
	if e := find(t, es, 0x40000000, 0); e.EAX != 0x40000005 || e.EBX != 0x7263694d {
		t.Errorf("Hyper-V's signature = %+v", e)
	}
	if e := find(t, es, 0x40000003, 0); e.EBX != 0 || e.EAX&(1<<7) != 0 || e.EDX&(1<<10) != 0 || e.EAX&(1<<9) == 0 {
		t.Errorf("Hyper-V's features = %+v, want none that need the VMM", e)
	}
	if e := find(t, es, 0x40000100, 0); e.EAX != 0x40000110 || e.EBX != 0x4b4d564b {
		t.Errorf("KVM's signature = %+v", e)
	}
	if e := find(t, es, 0x40000101, 0); e.EAX != kvmFeatures {
		t.Errorf("KVM's features = %+v", e)
	}
	for _, e := range es {
		if e.Function == 0x4000000a || e.Function == 0x40000080 {
			t.Errorf("leaf %#x is left", e.Function)
		}
	}
}

// Whatever KVM says, a model and its leaves are made without a panic.
func FuzzModel(f *testing.F) {
	f.Add(uint8(3), uint32(7), uint32(0), uint32(1), uint32(2), uint32(3), uint32(4), 6)
	f.Fuzz(func(t *testing.T, at uint8, function, index, a, b, c, d uint32, vcpus int) {
		host := genoa()
		host[int(at)%len(host)] = kvm.CPUIDEntry{Function: function, Index: index, EAX: a, EBX: b, ECX: c, EDX: d}
		topo, err := processor.NewTopology(vcpus%129, processor.Topology{Threads: int(d) % 3})
		if err != nil {
			return
		}
		for _, name := range processor.Models() {
			if m, err := Model(name, host); err == nil {
				CPUID(m, CPU{Index: topo.Count() - 1, Topology: topo, HyperV: HyperV(host)})
			}
		}
	})
}

// TestEveryModelIsKnown holds the names that can be asked for against the baselines.
func TestEveryModelIsKnown(t *testing.T) {
	for _, name := range processor.Models() {
		if _, err := baseline(name); err != nil && name != processor.HostModel {
			t.Error(err)
		}
	}
	if len(baselines)+1 != len(processor.Models()) {
		t.Errorf("%d baselines, models %v", len(baselines), processor.Models())
	}
}
