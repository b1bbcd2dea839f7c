package i6300esb

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// A bench is a watchdog on a bus of its own, and the times at which it expired.
type bench struct {
	*Watchdog
	t       testing.TB
	bus     *pci.Bus
	began   time.Time
	expired []time.Duration
}

func newBench(t testing.TB, before bool) *bench {
	b := &bench{t: t, began: time.Now()}
	var err error
	b.Watchdog, err = New(Config{Before: before, Expired: func(time.Duration) {
		b.expired = append(b.expired, time.Since(b.began))
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.bus = pci.NewBus(pci.Window{Base: 0xc0000000, Size: 1 << 20}, pci.Window{})
	if err := b.bus.Add(1, b.Watchdog); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) config(reg uint64, v ...byte) { b.bus.Write(1<<15+reg, v) }

func (b *bench) lockByte() byte {
	var v [1]byte
	b.bus.Read(1<<15+regLock, v[:])
	return v[0]
}

func (b *bench) write16(off uint64, v uint16) {
	b.BARWrite(0, off, binary.LittleEndian.AppendUint16(nil, v))
}

func (b *bench) unlock() {
	b.write16(regReload, unlockFirst)
	b.write16(regReload, unlockNext)
}

func (b *bench) feed() {
	b.unlock()
	b.write16(regReload, reloadCount)
}

func (b *bench) preset(timer uint64, v uint32) {
	b.unlock()
	b.BARWrite(0, timer, binary.LittleEndian.AppendUint32(nil, v))
}

func (b *bench) read32(off uint64) uint32 {
	var v [4]byte
	b.BARRead(0, off, v[:])
	return binary.LittleEndian.Uint32(v[:])
}

// second is what Linux's driver sets for a heartbeat of a second: half of it for each stage.
const (
	second = 1 << 9
	stage  = second << 15 * pciClock
)

// sure is more than any inaccuracy, and less than a stage.
const sure = 10 * time.Millisecond

func TestTwoStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		b.config(regConfig, 3, 0)
		b.preset(regTimer1, second)
		b.preset(regTimer2, 2*second)
		b.config(regLock, lockEnable)
		time.Sleep(stage - sure)
		if b.read32(regStatus) != 0 {
			t.Error("the first stage has ended early")
		}
		time.Sleep(2 * sure)
		if b.read32(regStatus) != statusStage || b.read32(regReload) != 0 {
			t.Errorf("status = %#x, reload = %#x after the first stage", b.read32(regStatus), b.read32(regReload))
		}
		b.write16(regStatus, statusStage)
		time.Sleep(time.Hour)
		if want := []time.Duration{3 * stage}; !slices.Equal(b.expired, want) {
			t.Errorf("expired at %v, want %v", b.expired, want)
		}
		if b.read32(regStatus) != 0 || b.read32(regReload) != reloadFlag {
			t.Errorf("status = %#x, reload = %#x after the second stage", b.read32(regStatus), b.read32(regReload))
		}
		b.unlock()
		b.write16(regReload, reloadFlag|reloadCount)
		if b.read32(regReload) != 0 {
			t.Error("the flag stays")
		}
		time.Sleep(time.Hour)
		if n := b.Counters(); len(b.expired) != 2 || n["expiries"] != 2 || n["reloads"] != 1 {
			t.Errorf("expired at %v, counters %v", b.expired, n)
		}
	})
}

func TestFed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, true)
		if b.read32(regReload) != reloadFlag {
			t.Error("the run before is not told")
		}
		b.preset(regTimer1, second)
		b.preset(regTimer2, second)
		b.config(regLock, lockEnable)
		for range 100 {
			time.Sleep(2*stage - sure)
			b.feed()
		}
		if b.config(regLock, 0); b.lockByte() != 0 {
			t.Error("it cannot be switched off")
		}
		time.Sleep(time.Hour)
		if len(b.expired) > 0 {
			t.Errorf("expired at %v", b.expired)
		}
	})
}

func TestUnlocking(t *testing.T) {
	for name, write := range map[string]func(b *bench){
		"without":     func(*bench) {},
		"half":        func(b *bench) { b.write16(regReload, unlockFirst) },
		"other order": func(b *bench) { b.write16(regReload, unlockNext); b.write16(regReload, unlockFirst) },
		"torn": func(b *bench) {
			b.write16(regReload, unlockFirst)
			b.write16(regReload, 0)
			b.write16(regReload, unlockNext)
		},
		"used": func(b *bench) { b.preset(regTimer2, 5) },
		"by bytes": func(b *bench) {
			b.BARWrite(0, regReload, []byte{unlockFirst})
			b.BARWrite(0, regReload, []byte{unlockNext})
		},
	} {
		b := newBench(t, true)
		write(b)
		b.BARWrite(0, regTimer1, []byte{7, 0, 0, 0})
		if got := b.read32(regTimer1); got != preloadMask {
			t.Errorf("%s unlocking timer 1 became %#x", name, got)
		}
		write(b)
		b.write16(regReload, reloadFlag|reloadCount)
		if n := b.Counters()["reloads"]; b.read32(regReload) == 0 || n != 0 {
			t.Errorf("%s unlocking the counter was reloaded", name)
		}
	}
	b := newBench(t, false)
	b.preset(regTimer1, 0xfff12345)
	if got := b.read32(regTimer1); got != 0x12345 {
		t.Errorf("timer 1 = %#x", got)
	}
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  byte
		lock    byte
		timers  uint32
		expired []time.Duration
		flag    uint32
	}{
		{"slow clock", 0, lockEnable, second, []time.Duration{2 * stage}, reloadFlag},
		{"fast clock", configFast, lockEnable, second << 10, []time.Duration{2 * stage}, reloadFlag},
		{"longest", 0, lockEnable, preloadMask, []time.Duration{2 * preloadMask << 15 * pciClock}, reloadFlag},
		{"no output", configOutputOff, lockEnable, second, nil, reloadFlag},
		{"free running", 0, lockEnable | lockFree, second, nil, 0},
		{"off", 0, lockLock, second, nil, 0},
		{"nothing", 0, lockEnable, 0, []time.Duration{2 * shortest}, reloadFlag},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, false)
				b.config(regConfig, tt.config, 0)
				b.preset(regTimer1, tt.timers)
				b.preset(regTimer2, tt.timers)
				b.config(regLock, tt.lock)
				time.Sleep(24 * time.Hour)
				if !slices.Equal(b.expired, tt.expired) || b.read32(regReload) != tt.flag {
					t.Errorf("expired at %v, flag %#x, want %v, %#x", b.expired, b.read32(regReload), tt.expired, tt.flag)
				}
			})
		})
	}
}

func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		b.config(regLock, 0xff&^lockFree)
		if got := b.lockByte(); got != lockEnable|lockLock {
			t.Errorf("lock = %#x", got)
		}
		b.config(regLock, 0)
		if got := b.lockByte(); got != lockEnable|lockLock {
			t.Errorf("lock = %#x after a write to it", got)
		}
		time.Sleep(24 * time.Hour)
		if len(b.expired) != 1 {
			t.Errorf("expired at %v: it was switched off", b.expired)
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, false)
		b.preset(regTimer1, second)
		b.preset(regTimer2, second)
		b.Pause()
		b.Resume() // with nothing to go on
		b.config(regLock, lockEnable)
		for i := range 3 { // in the first stage, twice in the second
			time.Sleep(stage/2 + sure)
			b.Pause()
			b.Pause()
			time.Sleep(time.Hour)
			if len(b.expired) > 0 {
				t.Fatalf("expired in pause %d", i)
			}
			b.Resume()
			b.Resume()
		}
		time.Sleep(time.Hour)
		if want := []time.Duration{2*stage + 3*time.Hour}; !slices.Equal(b.expired, want) {
			t.Errorf("expired at %v, want %v", b.expired, want)
		}
		b.feed()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if len(b.expired) != 1 {
			t.Errorf("expired at %v, also after its end", b.expired)
		}
	})
}

func FuzzAccesses(f *testing.F) {
	f.Add([]byte{0x0c, 2, 0x80, 0, 0, 0, 0x0c, 2, 0x86, 0, 0, 0, 0, 4, 1, 0, 0, 0})
	f.Add([]byte{0x68, 0x81, 2, 0, 0, 0, 0x10, 0x82, 0xff, 0xff, 0xff, 0xff, 0x60, 0x82, 0, 0, 0, 0})
	f.Add([]byte{0xff, 8, 1, 2, 3, 4, 0x0f, 4, 1, 2, 3, 4, 0x68, 0x84, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := newBench(t, false)
		defer b.Close()
		for ; len(ops) >= 6; ops = ops[6:] {
			data := make([]byte, 8)
			copy(data, ops[2:6])
			data = data[:1<<(ops[1]>>1&3)]
			off := uint64(ops[0])
			switch {
			case ops[1]&0x80 != 0:
				b.config(off, data...)
			case ops[1]&1 != 0:
				b.BARRead(0, off*16%(barSize-8), data)
			default:
				b.BARWrite(0, off, data)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.preload[0] > preloadMask || b.preload[1] > preloadMask || b.unlocked > 2 {
			t.Errorf("registers %#x, unlocked %d", b.preload, b.unlocked)
		}
		if b.counts() == (b.timer == nil && b.expiries.Load() == 0) {
			t.Error("the counter does not follow the lock register")
		}
	})
}
