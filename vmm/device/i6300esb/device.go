// Package i6300esb is the watchdog timer of Intel's 6300ESB I/O controller hub (datasheet
// 300641, chapter "Watchdog Timer"), as a PCI function: a counter of two stages, which a guest
// has to reload before both have run down.
//
// There is no interrupt at the end of the first stage: what would signal it, an ISA interrupt
// or an SMI, the machine does not have; it sets its status bit. The mode in which the counter
// runs free, only to interrupt, counts nothing for the same reason.
package i6300esb

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// Registers in configuration space.
const (
	regConfig = 0x60 // 2 bytes
	regLock   = 0x68 // 1 byte
)

// Bits of regConfig.
const (
	configOutputOff = 1 << 5 // the end of the second stage is not followed
	configFast      = 1 << 2 // the counter's clock is the PCI clock by 2^5, not by 2^15
	configInterrupt = 3 << 0
)

// Bits of regLock.
const (
	lockLock   = 1 << 0 // none of the bits can be changed any more
	lockEnable = 1 << 1
	lockFree   = 1 << 2 // the counter runs free
)

// Registers in BAR 0.
const (
	barSize     = 4096 // the chip has 16 bytes; this is the least that a page table can map
	regTimer1   = 0x0
	regTimer2   = 0x4
	regStatus   = 0x8
	regReload   = 0xc
	registers   = 0x10
	statusStage = 1 << 0 // the first stage has ended
	reloadCount = 1 << 8 // reload the counter
	reloadFlag  = 1 << 9 // the counter has run down; to be cleared by a one
	preloadMask = 1<<20 - 1
	unlockFirst = 0x80
	unlockNext  = 0x86
)

// pciClock is a cycle of it, at 33 MHz.
const pciClock = 30 * time.Nanosecond

// shortest is how long a stage takes at least, whatever the guest has set: time enough for the
// process to be no busier with it than with anything else that a guest can do.
const shortest = time.Millisecond

// A Config says what a Watchdog does.
type Config struct {
	// Expired is called when nobody has reloaded the counter for as long as both of its
	// stages take. It is called on a goroutine of its own, without a lock.
	Expired func(after time.Duration)
	// Before is whether the run before ended by it: the guest's driver asks that.
	Before bool
}

// A Watchdog is the function. It implements pci.Function.
type Watchdog struct {
	c   Config
	cfg *pci.Config

	expiries, reloads atomic.Uint64

	mu       sync.Mutex // guards what follows; Config's is taken below it
	config   uint16
	lock     byte
	preload  [2]uint32 // of the stages
	status   byte
	flag     bool // reloadFlag
	unlocked int  // how many words of the sequence have been written

	stage  int // 0 or 1, while the counter runs
	timer  *time.Timer
	turn   uint64    // of the timer: one that fires late finds another
	end    time.Time // of the stage, while the timer runs
	left   time.Duration
	paused bool
}

// New makes a watchdog that does not run.
func New(c Config) (*Watchdog, error) {
	w := &Watchdog{c: c, flag: c.Before, preload: [2]uint32{preloadMask, preloadMask}}
	w.cfg = pci.NewConfig(pci.Identity{Vendor: 0x8086, Device: 0x25ab, SubVendor: 0x8086, SubDevice: 0x25ab, Class: pci.ClassSystemOther})
	if err := w.cfg.AddBAR(0, pci.BAR{Size: barSize}); err != nil {
		return nil, err
	}
	if err := w.cfg.SetWritable(regConfig, configOutputOff|configFast|configInterrupt); err != nil {
		return nil, err
	}
	if err := w.cfg.SetWritable(regLock, lockLock|lockEnable|lockFree); err != nil {
		return nil, err
	}
	w.cfg.Hook(regConfig, 2, w.configWritten, nil)
	w.cfg.Hook(regLock, 1, w.lockWritten, nil)
	return w, nil
}

// Config implements pci.Function.
func (w *Watchdog) Config() *pci.Config { return w.cfg }

// BARMapped implements pci.Function.
func (w *Watchdog) BARMapped(int, uint64, bool) {}

// Counters are what has happened since the machine was made.
func (w *Watchdog) Counters() map[string]uint64 {
	return map[string]uint64{"expiries": w.expiries.Load(), "reloads": w.reloads.Load()}
}

func (w *Watchdog) configWritten() {
	var b [2]byte
	w.cfg.Bytes(regConfig, b[:])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.config = binary.LittleEndian.Uint16(b[:])
}

// lockWritten follows what the guest has written to regLock, or puts back what was there.
func (w *Watchdog) lockWritten() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b [1]byte
	w.cfg.Bytes(regLock, b[:])
	if w.lock&lockLock != 0 {
		w.cfg.SetBytes(regLock, []byte{w.lock})
		return
	}
	before := w.counts()
	w.lock = b[0]
	switch {
	case !w.counts():
		w.stop()
	case !before:
		w.begin(0)
	}
}

// counts says whether the counter is on. mu is held.
func (w *Watchdog) counts() bool { return w.lock&(lockEnable|lockFree) == lockEnable }

// BARRead implements pci.Function.
func (w *Watchdog) BARRead(_ int, off uint64, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var r [registers]byte
	binary.LittleEndian.PutUint32(r[regTimer1:], w.preload[0])
	binary.LittleEndian.PutUint32(r[regTimer2:], w.preload[1])
	r[regStatus] = w.status
	if w.flag {
		binary.LittleEndian.PutUint16(r[regReload:], reloadFlag)
	}
	clear(b)
	if off < registers {
		copy(b, r[off:])
	}
}

// BARWrite implements pci.Function. Registers are written whole; the reload register, of which
// two bytes are known, with two or four.
func (w *Watchdog) BARWrite(_ int, off uint64, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var v uint32
	switch len(b) {
	case 1:
		v = uint32(b[0])
	case 2:
		v = uint32(binary.LittleEndian.Uint16(b))
	case 4:
		v = binary.LittleEndian.Uint32(b)
	default:
		return
	}
	switch {
	case off == regReload && len(b) > 1:
		w.reloadWritten(v)
	case off == regStatus:
		w.status &^= byte(v) & statusStage
	case (off == regTimer1 || off == regTimer2) && len(b) == 4 && w.unlocked == 2:
		w.preload[off/regTimer2] = v & preloadMask
		w.unlocked = 0
	}
}

// reloadWritten follows the sequence that unlocks the registers for one write: 0x80, 0x86. mu
// is held.
func (w *Watchdog) reloadWritten(v uint32) {
	switch {
	case v == unlockFirst:
		w.unlocked = 1
		return
	case v == unlockNext && w.unlocked == 1:
		w.unlocked = 2
		return
	case w.unlocked == 2:
		if v&reloadFlag != 0 {
			w.flag = false
		}
		if v&reloadCount != 0 {
			w.reloads.Add(1)
			if w.counts() {
				w.begin(0)
			}
		}
	}
	w.unlocked = 0
}
