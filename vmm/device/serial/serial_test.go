package serial

import (
	"bytes"
	"sync"
	"testing"
)

type port struct {
	*UART
	out    bytes.Buffer
	raised int
}

func newPort() *port {
	p := &port{}
	p.UART = New(&p.out, func() { p.raised++ })
	return p
}

func (p *port) in(reg uint16) byte {
	b := []byte{0}
	p.In(reg, b)
	return b[0]
}

func (p *port) outb(reg uint16, v byte) { p.Out(reg, []byte{v}) }

func TestOutput(t *testing.T) {
	p := newPort()
	for _, c := range []byte("hello") {
		if p.in(regLSR)&lsrTHRE == 0 {
			t.Fatal("transmitter is not empty")
		}
		p.outb(regData, c)
	}
	if got := p.out.String(); got != "hello" {
		t.Errorf("output = %q, want hello", got)
	}
	if p.raised != 0 {
		t.Errorf("%d interrupts although none is enabled", p.raised)
	}
}

// One interrupt as the guest enables it, then one a byte: a driver that writes a
// byte an interrupt would hang otherwise.
func TestTransmitInterrupt(t *testing.T) {
	p := newPort()
	p.outb(regIER, ierTHRE)
	if p.raised != 1 {
		t.Fatalf("%d interrupts after enabling, want 1", p.raised)
	}
	if got := p.in(regIIR); got != iirTHRE {
		t.Errorf("IIR = %#x, want %#x", got, iirTHRE)
	}
	if got := p.in(regIIR); got != iirNone {
		t.Errorf("second IIR = %#x, want none", got)
	}
	for i := range 3 {
		p.outb(regData, 'x')
		if p.raised != 2+i {
			t.Fatalf("%d interrupts after %d bytes, want %d", p.raised, i+1, 2+i)
		}
	}
}

func TestInput(t *testing.T) {
	p := newPort()
	p.outb(regIIR, fcrEnable|2<<6) // trigger at 8
	p.outb(regIER, ierRDA)
	if n := p.Accept([]byte("abc")); n != 3 {
		t.Fatalf("Accept = %d, want 3", n)
	}
	if p.raised != 1 {
		t.Errorf("%d interrupts, want 1", p.raised)
	}
	if got := p.in(regIIR); got != iirFIFO|iirTimeout {
		t.Errorf("IIR below the trigger = %#x, want time-out", got)
	}
	p.Accept([]byte("defgh"))
	if got := p.in(regIIR); got != iirFIFO|iirRDA {
		t.Errorf("IIR at the trigger = %#x, want data", got)
	}
	var got []byte
	for p.in(regLSR)&lsrData != 0 {
		got = append(got, p.in(regData))
	}
	if string(got) != "abcdefgh" {
		t.Errorf("input = %q", got)
	}
	if v := p.in(regIIR); v != iirFIFO|iirNone {
		t.Errorf("IIR at the end = %#x, want none", v)
	}
	if v := p.in(regData); v != 0 {
		t.Errorf("data of an empty receiver = %#x", v)
	}
	p.Accept([]byte("x"))
	if p.raised != 2 {
		t.Errorf("%d interrupts, want a second edge", p.raised)
	}
}

// What is taken is not read by the driver as well.
func TestTake(t *testing.T) {
	p := newPort()
	p.Accept([]byte("ab"))
	if v, ok := p.Take(); v != 'a' || !ok {
		t.Errorf("Take = %q, %v, want a", v, ok)
	}
	if v := p.in(regData); v != 'b' {
		t.Errorf("the driver reads %q, want b", v)
	}
	if v, ok := p.Take(); v != 0 || ok || p.in(regLSR)&lsrData != 0 {
		t.Errorf("Take = %q, %v, want none", v, ok)
	}
}

func TestInputIsBounded(t *testing.T) {
	p := newPort()
	b := make([]byte, inputBuffer+100)
	if n := p.Accept(b); n != inputBuffer {
		t.Errorf("Accept = %d, want %d", n, inputBuffer)
	}
	if n := p.Accept(b); n != 0 {
		t.Errorf("Accept of a full receiver = %d, want 0", n)
	}
	p.in(regData)
	if n := p.Accept(b); n != 1 {
		t.Errorf("Accept = %d, want 1", n)
	}
}

// What Linux does to tell a 16550A from what came before it, and from nothing.
func TestProbe(t *testing.T) {
	p := newPort()
	p.outb(regMCR, mcrLoop|0x0a)
	if got := p.in(regMSR) & 0xf0; got != 0x90 {
		t.Errorf("MSR in loop-back = %#x, want 0x90", got)
	}
	p.outb(regMCR, mcrLoop)
	p.outb(regData, 'z')
	if got := p.in(regData); got != 'z' || p.out.Len() != 0 {
		t.Errorf("looped back = %q, output = %q", got, p.out.String())
	}
	p.outb(regMCR, 0)
	p.outb(regIIR, fcrEnable)
	if got := p.in(regIIR) >> 6; got != 3 {
		t.Errorf("IIR>>6 = %d, want 3: a 16550A", got)
	}
	p.outb(regScratch, 0x5a)
	if got := p.in(regScratch); got != 0x5a {
		t.Errorf("scratch = %#x", got)
	}
	p.outb(regLCR, lcrDLAB)
	p.Out(regData, []byte{1, 2})
	if lo, hi := p.in(regData), p.in(regIER); lo != 1 || hi != 2 {
		t.Errorf("divisor = %d, %d", lo, hi)
	}
	if p.out.Len() != 0 {
		t.Error("the divisor was sent")
	}
}

func FuzzUART(f *testing.F) {
	f.Add([]byte{0x01, 0x03, 0x80, 0x41, 0x00, 0x41})
	f.Add([]byte{0x84, 0x10, 0x80, 0x55, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, ops []byte) {
		p := newPort()
		for ; len(ops) >= 2; ops = ops[2:] {
			reg := uint16(ops[0] & 7)
			switch {
			case ops[0]&0x80 != 0:
				p.outb(reg, ops[1])
			case ops[0]&0x40 != 0:
				p.Accept(bytes.Repeat(ops[1:2], 100))
			default:
				p.in(reg)
			}
			if len(p.rx) > inputBuffer {
				t.Fatalf("%d bytes received and kept", len(p.rx))
			}
			if p.ier&ierRDA != 0 && len(p.rx) > 0 && !p.line {
				t.Fatal("data without an interrupt")
			}
		}
	})
}

func TestConcurrent(t *testing.T) {
	p := New(&bytes.Buffer{}, func() {})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			b := []byte{0}
			for range 1000 {
				p.Accept([]byte("x"))
				p.Out(uint16(i), b)
				p.In(0, b)
			}
		})
	}
	wg.Wait()
}
