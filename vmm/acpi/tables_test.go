package acpi

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func machine(cpus int) Machine {
	ids := make([]uint8, cpus)
	for i := range ids {
		ids[i] = uint8(2 * i) // as where a core has room for two threads
	}
	return Machine{
		CPUs: ids, Present: cpus,
		MMIO32: Window{0xc0000000, 512 << 20},
		MMIO64: Window{0x800000000, 16 << 30},
		ECAM:   Window{0xe0000000, 1 << 20},
	}
}

// disassemble has iasl, which is ACPI's reference, read the table.
func disassemble(t *testing.T, b []byte) string {
	t.Helper()
	if _, err := exec.LookPath("iasl"); err != nil {
		t.Fatal("this test needs iasl: apt-get install acpica-tools")
	}
	file := filepath.Join(t.TempDir(), strings.ToLower(string(b[:4]))+".dat")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("iasl", "-d", file).CombinedOutput()
	if err != nil {
		t.Fatalf("iasl -d: %v\n%s", err, out)
	}
	dsl, err := os.ReadFile(strings.TrimSuffix(file, ".dat") + ".dsl")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out) + string(dsl)
	for _, bad := range []string{"rror", "ncorrect checksum", "arning"} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, bad) && !strings.Contains(line, "_OSI") {
				t.Errorf("iasl says: %s", line)
			}
		}
	}
	return string(dsl)
}

func TestTables(t *testing.T) {
	for _, cpus := range []int{1, 16, 128} {
		for _, tab := range Tables(machine(cpus), 0xe0000)[1:] { // the RSDP is no table: TestChain
			sig := string(tab.Data[:4])
			t.Run(sig, func(t *testing.T) {
				dsl := disassemble(t, tab.Data)
				for _, want := range map[string][]string{
					"DSDT": {
						`Device (PCI0)`, `EisaId ("PNP0A08")`, `EisaId ("PNP0501")`, `EisaId ("PNP0B00")`,
						`Name (\_S5, Package (0x04)`, "0x00000000C0000000"[10:], "0x0000000800000000",
						"0x0000000BFFFFFFFF", "0x03F8", `33db4d5b-1ff7-401c-9657-7441c03dd766`,
					},
					"FACP": {"SCI Interrupt : 0009", "PM1A Event Block Address : 00000600", "PM1A Control Block Address : 00000604",
						"Address : 0000000000000CF9", "Value to cause reset : 06", "Reset Register Supported (V2) : 1",
						"Control Method Power Button (V1) : 0", "Hardware Reduced (V5) : 0", "8042 Present on ports 60/64 (V2) : 0"},
					"APIC": {"Local Apic Address : FEE00000", "Address : FEC00000"},
					"MCFG": {"Base Address : 00000000E0000000"},
					"FACS": {"Length : 00000040"},
				}[sig] {
					if !strings.Contains(dsl, want) {
						t.Errorf("%s does not say %q:\n%s", sig, want, dsl)
					}
				}
				if n := strings.Count(dsl, "[Processor Local APIC]"); sig == "APIC" && n != cpus {
					t.Errorf("%d processors, want %d", n, cpus)
				}
			})
		}
	}
}

// The power management timer is told of where there is one.
func TestPMTimer(t *testing.T) {
	for there, want := range map[bool][]string{
		true:  {"PM Timer Block Address : 0000060C", "PM Timer Block Length : 04"},
		false: {"PM Timer Block Address : 00000000", "PM Timer Block Length : 00"},
	} {
		m := machine(1)
		m.PMTimer = there
		for _, tab := range Tables(m, 0xe0000) {
			if string(tab.Data[:4]) != "FACP" {
				continue
			}
			dsl := disassemble(t, tab.Data)
			for _, w := range want {
				if !strings.Contains(dsl, w) {
					t.Errorf("with a timer: %v: the FADT does not say %q:\n%s", there, w, dsl)
				}
			}
		}
	}
}

// With slots there are more buses, and the system may control native hot-plug.
func TestHotplug(t *testing.T) {
	m := machine(1)
	for _, tt := range []struct {
		hotplug bool
		ecam    uint64
		want    map[string]string
	}{
		{false, 1 << 20, map[string]string{"DSDT": "CDW3 & 0x1C", "MCFG": "End Bus Number : 00"}},
		{true, 9 << 20, map[string]string{"DSDT": "CDW3 & 0x1D", "MCFG": "End Bus Number : 08"}},
	} {
		m.Hotplug, m.ECAM.Size = tt.hotplug, tt.ecam
		for _, tab := range Tables(m, 0xe0000)[1:] {
			want, ok := tt.want[string(tab.Data[:4])]
			if !ok {
				continue
			}
			if dsl := disassemble(t, tab.Data); !strings.Contains(dsl, want) {
				t.Errorf("hot-plug %v: no %q in\n%s", tt.hotplug, want, dsl)
			}
		}
	}
}

// Pins of PCI devices lead to four interrupts, device by device.
func TestPCILines(t *testing.T) {
	m := machine(1)
	m.PCILines = true
	b := dsdt(m)
	dsl := disassemble(t, b)
	recompiles(t, b, dsl)
	tight := strings.Join(strings.Fields(dsl), " ")
	for _, want := range []string{"Name (_PRT, Package (0x20)", "{ 0x0003FFFF, Zero, Zero, 0x14 }", "{ 0x001FFFFF, Zero, Zero, 0x14 }"} {
		if !strings.Contains(tight, want) {
			t.Errorf("no %q in\n%s", want, dsl)
		}
	}
	m.PCILines = false
	if dsl := disassemble(t, dsdt(m)); strings.Contains(dsl, "_PRT") {
		t.Error("there are lines where there are to be none")
	}
}

// What the disassembler makes of the DSDT compiles to the same bytes again.
func TestDSDTRoundTrip(t *testing.T) {
	want := dsdt(machine(4))
	recompiles(t, want, disassemble(t, want))
}

// recompiles has iasl compile what it made of a table.
func recompiles(t *testing.T, want []byte, dsl string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/t.dsl", []byte(dsl), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("iasl", "-oa", "-p", dir+"/t", dir+"/t.dsl").CombinedOutput(); err != nil {
		t.Fatalf("iasl: %v\n%s", err, out)
	}
	got, err := os.ReadFile(dir + "/t.aml")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < headerSize || !bytes.Equal(got[headerSize:], want[headerSize:]) {
		t.Errorf("recompiled DSDT differs:\n% x\nwant\n% x", got, want)
	}
}

func TestChain(t *testing.T) {
	f, err := memory.Create("test", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := memory.Map(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	rsdp, err := Write(mem, machine(2), 0xe0000, 0x10000)
	if err != nil {
		t.Fatal(err)
	}
	read := func(gpa, n uint64) []byte {
		t.Helper()
		b := make([]byte, n)
		if err := mem.ReadAt(gpa, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	sum := func(b []byte) (s byte) {
		for _, v := range b {
			s += v
		}
		return s
	}
	b := read(rsdp, rsdpSize)
	if string(b[:8]) != "RSD PTR " || sum(b[:20]) != 0 || sum(b) != 0 {
		t.Fatalf("RSDP = % x", b)
	}
	x := read(binary.LittleEndian.Uint64(b[24:]), headerSize+3*8)
	if string(x[:4]) != "XSDT" || sum(x) != 0 {
		t.Fatalf("XSDT = % x", x)
	}
	for i, want := range []string{"FACP", "APIC", "MCFG"} {
		gpa := binary.LittleEndian.Uint64(x[headerSize+8*i:])
		h := read(gpa, headerSize)
		all := read(gpa, uint64(binary.LittleEndian.Uint32(h[4:])))
		if string(h[:4]) != want || sum(all) != 0 {
			t.Errorf("table %d = %q, sum %d, want %s", i, h[:4], sum(all), want)
		}
		if want == "FACP" {
			if d := read(uint64(binary.LittleEndian.Uint32(all[40:])), 4); string(d) != "DSDT" {
				t.Errorf("FADT leads to %q", d)
			}
		}
	}
	if _, err := Write(mem, machine(2), 0xe0000, 256); err == nil {
		t.Error("Write into 256 bytes succeeded")
	}
}

func TestPkgLength(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want []byte
	}{
		{0, []byte{0x01}}, {62, []byte{0x3f}}, {63, []byte{0x41, 0x04}},
		{4093, []byte{0x4f, 0xff}}, {4094, []byte{0x81, 0x00, 0x01}},
	} {
		if got := pkgLength(tt.n); !bytes.Equal(got, tt.want) {
			t.Errorf("pkgLength(%d) = % x, want % x", tt.n, got, tt.want)
		}
	}
}
