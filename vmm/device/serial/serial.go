// Package serial is a 16550A UART, as at COM1 of a PC, after the data sheet of
// the PC16550D. Speed and line settings are kept and mean nothing: output
// leaves at once, input comes as fast as the guest reads.
package serial

import (
	"io"
	"sync"
)

// Registers, from the base port (data sheet, table 2).
const (
	regData     = 0 // RBR, THR; divisor low with DLAB
	regIER      = 1 // divisor high with DLAB
	regIIR      = 2 // FCR on write
	regLCR      = 3
	regMCR      = 4
	regLSR      = 5
	regMSR      = 6
	regScratch  = 7
	registers   = 8
	ierRDA      = 1 << 0
	ierTHRE     = 1 << 1
	ierMask     = 0x0f
	iirNone     = 0x01
	iirTHRE     = 0x02
	iirRDA      = 0x04
	iirTimeout  = 0x0c
	iirFIFO     = 0xc0
	fcrEnable   = 1 << 0
	fcrClearRx  = 1 << 1
	lcrDLAB     = 1 << 7
	mcrLoop     = 1 << 4
	mcrMask     = 0x1f
	lsrData     = 1 << 0
	lsrTHRE     = 1 << 5
	lsrIdle     = 1 << 6
	msrCTS      = 1 << 4
	msrDSR      = 1 << 5
	msrRI       = 1 << 6
	msrDCD      = 1 << 7
	inputBuffer = 4096
)

// Ports is how many I/O ports a UART takes.
const Ports = registers

// A UART is one serial port. It implements device.Ports.
type UART struct {
	raise func()
	out   io.Writer

	mu       sync.Mutex
	ier, lcr byte // guarded by mu, as all below
	mcr, scr byte
	fcr      byte
	divisor  [2]byte
	thre     bool   // the transmitter became empty since IIR told so last
	line     bool   // the interrupt line as the guest's controller saw it last
	rx       []byte // received, oldest first; at most inputBuffer
}

// New makes a UART. Output goes to out, whose Write may not block; raise makes
// a rising edge of the interrupt line. Neither may call the UART.
func New(out io.Writer, raise func()) *UART {
	return &UART{out: out, raise: raise, divisor: [2]byte{12, 0}}
}

// Accept takes as much of b as there is room for, as if it had been received,
// and returns how many bytes those are.
func (u *UART) Accept(b []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := min(len(b), inputBuffer-len(u.rx))
	u.rx = append(u.rx, b[:n]...)
	u.update()
	return n
}

// Take takes the oldest byte that was received and not yet read.
func (u *UART) Take() (byte, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.rx) == 0 {
		return 0, false
	}
	v := u.rx[0]
	u.rx = u.rx[1:]
	u.update()
	return v, true
}

// In implements device.Ports.
func (u *UART) In(port uint16, b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range b {
		b[i] = u.read(port + uint16(i))
	}
	u.update()
}

// Out implements device.Ports.
func (u *UART) Out(port uint16, b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, v := range b {
		u.write(port+uint16(i), v)
	}
	u.update()
}

func (u *UART) read(reg uint16) byte {
	switch reg {
	case regData:
		if u.lcr&lcrDLAB != 0 {
			return u.divisor[0]
		}
		if len(u.rx) == 0 {
			return 0
		}
		v := u.rx[0]
		u.rx = u.rx[1:]
		return v
	case regIER:
		if u.lcr&lcrDLAB != 0 {
			return u.divisor[1]
		}
		return u.ier
	case regIIR:
		return u.identify()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		v := byte(lsrTHRE | lsrIdle)
		if len(u.rx) > 0 {
			v |= lsrData
		}
		return v
	case regMSR:
		return u.modem()
	case regScratch:
		return u.scr
	}
	return 0xff
}

func (u *UART) write(reg uint16, v byte) {
	switch reg {
	case regData:
		if u.lcr&lcrDLAB != 0 {
			u.divisor[0] = v
			return
		}
		u.transmit(v)
	case regIER:
		if u.lcr&lcrDLAB != 0 {
			u.divisor[1] = v
			return
		}
		if v&ierTHRE != 0 && u.ier&ierTHRE == 0 {
			u.thre = true // the transmitter is empty, and that is news
		}
		u.ier = v & ierMask
	case regIIR:
		if v&fcrClearRx != 0 || v&fcrEnable != u.fcr&fcrEnable {
			u.rx = nil
		}
		u.fcr = v
	case regLCR:
		u.lcr = v
	case regMCR:
		u.mcr = v & mcrMask
	case regScratch:
		u.scr = v
	}
}

// transmit sends a byte; the transmitter is empty again at once, which is a new
// interrupt.
func (u *UART) transmit(v byte) {
	if u.mcr&mcrLoop != 0 {
		if len(u.rx) < inputBuffer {
			u.rx = append(u.rx, v)
		}
	} else {
		// Output that cannot be kept is lost, as on a cable that leads nowhere.
		_, _ = u.out.Write([]byte{v})
	}
	u.thre, u.line = true, false
}

// trigger is how many received bytes make an interrupt of their own
// (FCR bits 6 and 7).
func (u *UART) trigger() int {
	if u.fcr&fcrEnable == 0 {
		return 1
	}
	return [...]int{1, 4, 8, 14}[u.fcr>>6]
}

// pending is the cause with the highest priority, as IIR shows it.
func (u *UART) pending() byte {
	switch {
	case u.ier&ierRDA != 0 && len(u.rx) >= u.trigger():
		return iirRDA
	case u.ier&ierRDA != 0 && len(u.rx) > 0:
		return iirTimeout
	case u.ier&ierTHRE != 0 && u.thre:
		return iirTHRE
	}
	return iirNone
}

// identify is a read of IIR, which ends the interrupt of the transmitter.
func (u *UART) identify() byte {
	v := u.pending()
	if v == iirTHRE {
		u.thre = false
	}
	if u.fcr&fcrEnable != 0 {
		v |= iirFIFO
	}
	return v
}

// modem is the modem status: somebody is there and ready, or, in loop-back, what
// the modem control register says.
func (u *UART) modem() byte {
	if u.mcr&mcrLoop == 0 {
		return msrDCD | msrDSR | msrCTS
	}
	var v byte
	for i, bit := range [...]byte{msrDSR, msrCTS, msrRI, msrDCD} {
		if u.mcr&(1<<i) != 0 {
			v |= bit
		}
	}
	return v
}

// update follows the interrupt line; mu is held.
func (u *UART) update() {
	high := u.pending() != iirNone
	if high && !u.line {
		u.raise()
	}
	u.line = high
}
