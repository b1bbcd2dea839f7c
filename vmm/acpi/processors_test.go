package acpi

import (
	"strings"
	"testing"
)

// pluggableMachine has two processors, and places for more up to cpus.
func pluggableMachine(cpus int) Machine {
	m := machine(cpus)
	m.Present, m.Pluggable = min(cpus, 2), true
	return m
}

// The reference compiler reads the code by which processors come and go, and makes the
// same of what it read.
func TestPluggable(t *testing.T) {
	for _, cpus := range []int{1, 4, 128} {
		m := pluggableMachine(cpus)
		code := dsdt(m)
		dsl := disassemble(t, code)
		recompiles(t, code, dsl)
		for _, want := range []string{
			`"ACPI0013"`, "Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive", "0x00000010,",
			"OperationRegion (EPRT, SystemIO, 0x0608, 0x04)", `\_SB.CPUS.CSCN ()`,
			"OperationRegion (CPRT, SystemIO, 0x0610, 0x10)", "Mutex (CLCK, 0x00)", "Offset (0x08)", "Offset (0x04)",
		} {
			if !strings.Contains(dsl, want) {
				t.Errorf("%d processors: no %q in\n%s", cpus, want, dsl)
			}
		}
		for method, want := range map[string]int{"Method (_STA": cpus - 1, "Method (_MAT": cpus - 1, "Method (_EJ0": cpus - 1, "Method (_OST": cpus - 1, "Notify (C": cpus - 1} {
			if n := strings.Count(dsl, method); n != want {
				t.Errorf("%d of %q, want %d", n, method, want)
			}
		}
		list := disassemble(t, madt(m))
		if n := strings.Count(list, "Processor Enabled : 1"); n != m.Present {
			t.Errorf("%d processors enabled, want %d", n, m.Present)
		}
		if n := strings.Count(list, "Runtime Online Capable : 1"); n != cpus-m.Present {
			t.Errorf("%d processors may come, want %d", n, cpus-m.Present)
		}
	}
}

// A machine whose processors stay has no events.
func TestNoEvents(t *testing.T) {
	if dsl := disassemble(t, dsdt(machine(4))); strings.Contains(dsl, "ACPI0013") || strings.Contains(dsl, "_EJ0") {
		t.Errorf("a fixed machine can be told something:\n%s", dsl)
	}
}

// All of the largest machine fits.
func TestLargestFits(t *testing.T) {
	const base, size = 0xe0000, 0x10000
	for _, tab := range Tables(pluggableMachine(128), base) {
		if end := tab.GPA + uint64(len(tab.Data)); end > base+size {
			t.Errorf("%q ends at %#x", tab.Data[:4], end)
		}
	}
}
