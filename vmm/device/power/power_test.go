package power

import (
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

func TestPowerButton(t *testing.T) {
	var levels []bool
	p := NewPM1(func(high bool) { levels = append(levels, high) }, func(int) { t.Error("went to sleep") })
	p.PressButton()
	if len(levels) != 0 || p.ButtonEnabled() {
		t.Fatal("interrupt although not enabled")
	}
	p.Out(acpi.PM1Enable, []byte{0, acpi.PowerButtonBit >> 8})
	if !slices.Equal(levels, []bool{true}) || !p.ButtonEnabled() {
		t.Fatalf("levels = %v, want high", levels)
	}
	b := make([]byte, 4)
	p.In(0, b)
	if b[1]&1 == 0 || b[3]&1 == 0 {
		t.Errorf("status and enable = % x", b)
	}
	p.Out(acpi.PM1Status, []byte{0xff, 0xfe}) // all but the button
	if len(levels) != 1 {
		t.Fatalf("levels = %v, want the button to stay", levels)
	}
	p.Out(acpi.PM1Status, []byte{0, 1})
	if !slices.Equal(levels, []bool{true, false}) {
		t.Errorf("levels = %v, want high, low", levels)
	}
}

func TestSleep(t *testing.T) {
	var got []int
	p := NewPM1(func(bool) {}, func(n int) { got = append(got, n) })
	p.Out(acpi.PM1Control, []byte{0, acpi.SoftOff << 2}) // type alone
	p.Out(acpi.PM1Control, []byte{0, acpi.SoftOff<<2 | acpi.SleepEnable>>8})
	if !slices.Equal(got, []int{acpi.SoftOff}) {
		t.Errorf("sleep types = %v, want one of %d", got, acpi.SoftOff)
	}
	b := make([]byte, 2)
	p.In(acpi.PM1Control, b)
	if b[0]&sciEnable == 0 || b[1]&(acpi.SleepEnable>>8) != 0 {
		t.Errorf("control = % x, want ACPI on and no sleep", b)
	}
}

func TestReset(t *testing.T) {
	resets := 0
	r := &ResetPort{Reset: func() { resets++ }}
	for _, v := range []byte{hardReset, 0, hardReset} {
		r.Out(0, []byte{v})
	}
	if resets != 0 {
		t.Fatal("reset without the bit")
	}
	r.Out(0, []byte{acpi.ResetValue})
	if resets != 1 {
		t.Errorf("%d resets by 0xCF9, want 1", resets)
	}
	k := Keyboard{Reset: func() { resets++ }}
	k.Out(0, []byte{0xd1})
	k.Out(0, []byte{pulseReset})
	if resets != 2 {
		t.Errorf("%d resets, want one by the keyboard controller", resets)
	}
}

func FuzzPM1(f *testing.F) {
	f.Add([]byte{3, 1, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		p := NewPM1(func(bool) {}, func(int) {})
		for ; len(ops) >= 2; ops = ops[2:] {
			p.Out(uint16(ops[0])%acpi.PM1Size, ops[1:2])
			p.PressButton()
			if p.asserted != (p.status&p.enable != 0) {
				t.Fatal("interrupt does not follow the registers")
			}
		}
	})
}
