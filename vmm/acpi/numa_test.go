package acpi

import (
	"strings"
	"testing"
)

// numaMachine has two nodes, the first with memory on both sides of the hole below 4 GiB.
func numaMachine() Machine {
	m := machine(4)
	m.Nodes = []Node{
		{CPUs: m.CPUs[:3], Memory: []Window{{0, 3 << 30}, {4 << 30, 1 << 30}}, Distances: []uint8{10, 31},
			Access: []Access{{ReadLatency: 80_000, ReadBandwidth: 20_000}, {ReadLatency: 140_000}}},
		{CPUs: m.CPUs[3:], Memory: []Window{{5 << 30, 2 << 20}}, Pluggable: Window{6 << 30, 128 << 20}, Distances: []uint8{42, 10}},
	}
	return m
}

// What iasl makes of the tables of nodes.
func TestNUMA(t *testing.T) {
	seen := 0
	for _, tab := range Tables(numaMachine(), 0xe0000) {
		if len(tab.Data) < headerSize {
			continue
		}
		var want []string
		counts := map[string]int{}
		switch string(tab.Data[:4]) {
		case "SRAT":
			want = []string{
				"Base Address : 0000000000000000", "Address Length : 00000000C0000000",
				"Base Address : 0000000100000000", "Address Length : 0000000040000000",
				"Base Address : 0000000140000000", "Address Length : 0000000000200000",
				"Base Address : 0000000180000000", "Address Length : 0000000008000000",
				"Proximity Domain : 00000001", "Proximity Domain Low(8) : 01", "Apic ID : 06",
			}
			counts = map[string]int{
				"[Processor Local APIC/SAPIC Affinity]": 4, "[Memory Affinity]": 4, "Enabled : 1": 8,
				"Hot Pluggable : 1": 1, "Proximity Domain : 00000000": 2, "Proximity Domain Low(8) : 00": 3,
			}
		case "SLIT":
			want = []string{"Localities : 0000000000000002", "Locality   0 : 0A 1F", "Locality   1 : 2A 0A"}
		case "HMAT":
			want = []string{"Entry Base Unit : 0000000000000003", "Entry Base Unit : 0000000000000001"}
			counts = map[string]int{
				"Structure Type : 0000 [Memory Proximity Domain Attributes]": 2, "Processor Proximity Domain Valid : 1": 2,
				"Structure Type : 0001": 2, "Data Type : 01": 1, "Data Type : 04": 1,
				"Entry : 682B": 1, "Entry : B64B": 1, "Entry : 4E20": 1, "Entry : 0000": 5,
			}
		case "XSDT":
			counts["ACPI Table Address"] = 6
		default:
			continue
		}
		seen++
		dsl := disassemble(t, tab.Data)
		for _, w := range want {
			if !strings.Contains(dsl, w) {
				t.Errorf("no %q in:\n%s", w, dsl)
			}
		}
		for w, n := range counts {
			if got := strings.Count(dsl, w); got != n {
				t.Errorf("%q stands there %d times, want %d:\n%s", w, got, n, dsl)
			}
		}
	}
	if seen != 4 {
		t.Errorf("%d of SRAT, SLIT, HMAT and XSDT", seen)
	}
}

// The namespace says which node each processor is of, also of those that come later.
func TestNodesOfProcessors(t *testing.T) {
	m := numaMachine()
	m.Present, m.Pluggable = 1, true
	dsl := disassemble(t, dsdt(m))
	for domain, want := range map[string]int{"_PXM, Zero": 3, "_PXM, One": 1} {
		if got := strings.Count(dsl, domain); got != want {
			t.Errorf("%q stands there %d times, want %d:\n%s", domain, got, want, dsl)
		}
	}
	if strings.Contains(disassemble(t, dsdt(machine(4))), "_PXM") {
		t.Error("a machine without nodes tells of some")
	}
}
