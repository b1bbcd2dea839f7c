package rtc

import (
	"testing"
	"time"
)

func get(c *Clock, reg byte) byte {
	c.Out(0, []byte{reg})
	b := []byte{0}
	c.In(1, b)
	return b[0]
}

func set(c *Clock, reg, v byte) { c.Out(0, []byte{reg, v}) }

func TestTime(t *testing.T) {
	now := time.Date(2031, 12, 9, 15, 4, 59, 0, time.UTC)
	c := New(func() time.Time { return now })
	want := map[byte]byte{
		regSeconds: 0x59, regMinutes: 0x04, regHours: 0x15, regWeekday: 0x03, regDay: 0x09,
		regMonth: 0x12, regYear: 0x31, regCentury: 0x20, regD: validRAM, regC: 0,
	}
	for reg, v := range want {
		if got := get(c, reg); got != v {
			t.Errorf("register %#x = %#x, want %#x", reg, got, v)
		}
	}
	if get(c, regA)&0x80 != 0 {
		t.Error("an update is in progress")
	}
	set(c, regB, bBinary)
	if got := get(c, regHours); got != 3|pm {
		t.Errorf("hours in binary and 12 = %#x, want 3 pm", got)
	}
	now = now.Add(-15 * time.Hour)
	if got := get(c, regHours); got != 12 {
		t.Errorf("hours at midnight = %#x, want 12 am", got)
	}
}

func TestSet(t *testing.T) {
	now := time.Date(2031, 1, 31, 23, 0, 0, 0, time.UTC)
	c := New(func() time.Time { return now })
	for _, w := range [][2]byte{{regSeconds, 0x30}, {regMinutes, 0x45}, {regHours, 0x06}, {regDay, 0x15}, {regMonth, 0x02}, {regYear, 0x29}} {
		set(c, w[0], w[1])
	}
	now = now.Add(time.Second)
	if got := now.Add(c.offset); !got.Equal(time.Date(2029, 2, 15, 6, 45, 31, 0, time.UTC)) {
		t.Errorf("time = %v", got)
	}
	set(c, 0x40, 0x77)
	if got := get(c, 0x40); got != 0x77 {
		t.Errorf("RAM = %#x", got)
	}
	if got := get(c, 0xc0); got != 0x77 {
		t.Errorf("RAM with NMI masked = %#x", got)
	}
}

func FuzzClock(f *testing.F) {
	f.Add([]byte{0, 0xff, 9, 0xff, 0x32, 0xff, 8, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		c := New(time.Now)
		for ; len(ops) >= 2; ops = ops[2:] {
			set(c, ops[0], ops[1])
			get(c, ops[1])
		}
	})
}
