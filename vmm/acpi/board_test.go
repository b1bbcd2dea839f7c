package acpi

import (
	"strings"
	"testing"
)

func TestBoard(t *testing.T) {
	dsl := disassemble(t, dsdt(machine(1)))
	for _, want := range []string{
		`Device (PEVT)`, `Name (_HID, "QEMU0001")`, "0x0505",
		`Device (VGEN)`, `"VM_Gen_Counter"`, `"VMGENCTR"`, `Name (ADDR, Package (0x02)`, "0x000DFFF0",
	} {
		if !strings.Contains(dsl, want) {
			t.Errorf("the DSDT does not say %q:\n%s", want, dsl)
		}
	}
}
