package kvm

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func openKVM(t testing.TB) *System {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("these tests need /dev/kvm: %v", err)
	}
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A guest is a VM with one page of real-mode code at 0x1000.
type guest struct {
	vm  *VM
	cpu *VCPU
	mem *memory.Memory
}

func newGuest(t testing.TB, code ...byte) *guest {
	t.Helper()
	s := openKVM(t)
	vm, err := s.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	if err := vm.SetTSSAddress(0xfffbd000, 0xfffbc000); err != nil {
		t.Fatal(err)
	}
	if err := vm.CreateIRQChip(); err != nil {
		t.Fatal(err)
	}
	f, err := memory.Create("guest", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := memory.Map(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	r := mem.Regions()[0]
	if err := vm.SetMemoryRegion(MemorySlot{GPA: r.GPA, Size: r.Size, HostAddr: r.HostAddr}); err != nil {
		t.Fatal(err)
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cpu.Close() })
	g := &guest{vm, cpu, mem}
	g.load(t, code...)
	return g
}

// load puts code at 0x1000 and points the vCPU at it.
func (g *guest) load(t testing.TB, code ...byte) {
	t.Helper()
	if err := g.mem.WriteAt(0x1000, code); err != nil {
		t.Fatal(err)
	}
	s, err := g.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := g.cpu.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	if err := g.cpu.SetRegs(&Regs{RIP: 0x1000, RSP: 0x8000, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) run(t testing.TB, want ExitReason) {
	t.Helper()
	for {
		r, err := g.cpu.Run()
		if errors.Is(err, ErrInterrupted) {
			continue // a signal of the Go runtime
		}
		if err != nil {
			t.Fatal(err)
		}
		if r != want {
			t.Fatalf("Run() = %d (%v), want %d", r, g.cpu.Failure(r), want)
		}
		return
	}
}

func TestOpenRefuses(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(f); err == nil || !strings.Contains(err.Error(), "is it /dev/kvm?") {
		t.Errorf("Open(/dev/null) = %v, want a hint", err)
	}
	if got := (&MissingError{CapIRQFD}).Error(); !strings.Contains(got, "KVM_CAP_IRQFD") {
		t.Errorf("MissingError = %q, want the capability's name", got)
	}
}

func TestPortIO(t *testing.T) {
	g := newGuest(t,
		0xb0, 'A', // mov al, 'A'
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xe5, 0x60, // in ax, 0x60
		0xe7, 0x61, // out 0x61, ax
	)
	g.run(t, ExitIO)
	io, err := g.cpu.IO()
	if err != nil || !io.Out || io.Port != 0x3f8 || string(io.Data) != "A" {
		t.Fatalf("IO() = %+v, %v, want OUT of A to 0x3f8", io, err)
	}
	g.run(t, ExitIO)
	if io, err = g.cpu.IO(); err != nil || io.Out || io.Port != 0x60 || io.Size != 2 {
		t.Fatalf("IO() = %+v, %v, want IN from 0x60", io, err)
	}
	binary.LittleEndian.PutUint16(io.Data, 0xbeef)
	g.run(t, ExitIO)
	if io, err = g.cpu.IO(); err != nil || io.Port != 0x61 || binary.LittleEndian.Uint16(io.Data) != 0xbeef {
		t.Fatalf("IO() = %+v, %v, want OUT of 0xbeef to 0x61", io, err)
	}
}

func TestMMIO(t *testing.T) {
	g := newGuest(t,
		0x66, 0xbb, 0x00, 0x00, 0x00, 0xd0, // mov ebx, 0xd0000000
		0x67, 0x66, 0xc7, 0x03, 0x78, 0x56, 0x34, 0x12, // mov dword [ebx], 0x12345678
		0x67, 0x8a, 0x43, 0x04, // mov al, [ebx+4]
		0xe6, 0x10, // out 0x10, al
	)
	s, err := g.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.DS.Limit = 0xffffffff
	s.DS.G = 1
	if err := g.cpu.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	g.run(t, ExitMMIO)
	m, err := g.cpu.MMIO()
	if err != nil || !m.Write || m.GPA != 0xd0000000 || len(m.Data) != 4 || binary.LittleEndian.Uint32(m.Data) != 0x12345678 {
		t.Fatalf("MMIO() = %+v, %v, want a write", m, err)
	}
	g.run(t, ExitMMIO)
	if m, err = g.cpu.MMIO(); err != nil || m.Write || m.GPA != 0xd0000004 || len(m.Data) != 1 {
		t.Fatalf("MMIO() = %+v, %v, want a read", m, err)
	}
	m.Data[0] = 0x5a
	g.run(t, ExitIO)
	if io, err := g.cpu.IO(); err != nil || io.Data[0] != 0x5a {
		t.Fatalf("IO() = %+v, %v, want what was read", io, err)
	}
}

// A division by zero in unpaged 32-bit mode, without an interrupt table.
func TestTripleFault(t *testing.T) {
	g := newGuest(t, 0x31, 0xc9, 0xf7, 0xf1) // xor ecx, ecx; div ecx
	s, err := g.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CR0 |= 1
	s.CS = Segment{Limit: 0xffffffff, Selector: 8, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	data := Segment{Limit: 0xffffffff, Selector: 16, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.SS, s.FS, s.GS = data, data, data, data, data
	s.IDT = DTable{}
	if err := g.cpu.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	g.run(t, ExitShutdown)
}

func TestInterrupt(t *testing.T) {
	g := newGuest(t, 0xeb, 0xfe) // jmp to itself
	g.cpu.Interrupt()
	if r, err := g.cpu.Run(); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("Run() = %d, %v, want ErrInterrupted at once", r, err)
	}
	g.cpu.ClearInterrupt()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	go func() {
		time.Sleep(20 * time.Millisecond)
		g.cpu.Interrupt()
		unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
	}()
	if r, err := g.cpu.Run(); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("Run() = %d, %v, want ErrInterrupted", r, err)
	}
}

func eventFD(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "eventfd")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestIOEventFD(t *testing.T) {
	g := newGuest(t,
		0xb0, 0x01, 0xe6, 0x20, // out 0x20, al=1: caught
		0xb0, 0x02, 0xe6, 0x20, // out 0x20, al=2: not
	)
	e, one := eventFD(t), uint64(1)
	ev := IOEvent{Address: 0x20, Length: 1, Port: true, Data: &one}
	if err := g.vm.CreatePIT(); err != nil {
		t.Fatal(err)
	}
	ev.Address = 0x120
	g.load(t, 0xba, 0x20, 0x01, 0xb0, 0x01, 0xee, 0xb0, 0x02, 0xee)
	if err := g.vm.IOEventFD(ev, e); err != nil {
		t.Fatal(err)
	}
	g.run(t, ExitIO)
	if io, err := g.cpu.IO(); err != nil || io.Data[0] != 2 {
		t.Fatalf("IO() = %+v, %v, want the write of 2 only", io, err)
	}
	var b [8]byte
	if _, err := e.Read(b[:]); err != nil || binary.NativeEndian.Uint64(b[:]) != 1 {
		t.Errorf("eventfd = %v, %v, want 1", b, err)
	}
	if err := g.vm.RemoveIOEventFD(ev, e); err != nil {
		t.Error(err)
	}
	if err := g.vm.RemoveIOEventFD(ev, e); err == nil {
		t.Error("second RemoveIOEventFD succeeded")
	}
}

// The guest takes one interrupt through IRQ 4 of the PIC and reports it.
func TestIRQFD(t *testing.T) {
	g := newGuest(t,
		0xb0, 0x11, 0xe6, 0x20, // ICW1
		0xb0, 0x20, 0xe6, 0x21, // ICW2: vectors from 0x20
		0xb0, 0x04, 0xe6, 0x21, // ICW3
		0xb0, 0x01, 0xe6, 0x21, // ICW4
		0xb0, 0xef, 0xe6, 0x21, // only IRQ 4
		0xfb, 0xf4, // sti; hlt
		0xeb, 0xfd, // jmp to hlt
	)
	if err := g.mem.WriteAt(0x2000, []byte{0xb0, 0x77, 0xe6, 0x80, 0xcf}); err != nil { // out 0x80, 0x77; iret
		t.Fatal(err)
	}
	if err := g.mem.Store32(0x24*4, 0x2000); err != nil {
		t.Fatal(err)
	}
	var l LAPICState
	l, err := g.cpu.LAPIC()
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(l.Regs[0x350:], 0x700) // LINT0: ExtINT
	if err := g.cpu.SetLAPIC(&l); err != nil {
		t.Fatal(err)
	}
	e := eventFD(t)
	if err := g.vm.SetRoutes([]Route{{GSI: 4, Chip: IRQChipPICMaster, Pin: 4}}); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.IRQFD(e, 4); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		e.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	}()
	g.run(t, ExitIO)
	if io, err := g.cpu.IO(); err != nil || io.Port != 0x80 || io.Data[0] != 0x77 {
		t.Fatalf("IO() = %+v, %v, want the interrupt's report", io, err)
	}
	if err := g.vm.RemoveIRQFD(e, 4); err != nil {
		t.Error(err)
	}
}

func TestSetRoutesRefuses(t *testing.T) {
	g := newGuest(t)
	if err := g.vm.SetRoutes(make([]Route, MaxRoutes+1)); err == nil {
		t.Error("SetRoutes took too many")
	}
	if err := g.vm.SetRoutes([]Route{{GSI: 30, MSI: true, Address: 0xfee00000, Data: 0x41}}); err != nil {
		t.Error(err)
	}
}

func TestDirtyLog(t *testing.T) {
	g := newGuest(t, 0xc6, 0x06, 0x00, 0x50, 0x01, 0xe6, 0x10) // mov byte [0x5000], 1; out
	r := g.mem.Regions()[0]
	if err := g.vm.SetMemoryRegion(MemorySlot{GPA: r.GPA, Size: r.Size, HostAddr: r.HostAddr, Flags: LogDirtyPages}); err != nil {
		t.Fatal(err)
	}
	g.run(t, ExitIO)
	bits := make([]uint64, 4)
	if err := g.vm.DirtyLog(0, 256, bits); err != nil {
		t.Fatal(err)
	}
	if bits[0]&(1<<5) == 0 || bits[0]&(1<<6) != 0 {
		t.Errorf("dirty pages = %#x, want page 5 and not 6", bits[0])
	}
	if err := g.vm.DirtyLog(0, 256, bits[:3]); err == nil {
		t.Error("DirtyLog took a bitmap that is too small")
	}
}

func TestState(t *testing.T) {
	g := newGuest(t)
	ids, err := openKVM(t).SupportedCPUID()
	if err != nil || !slices.ContainsFunc(ids, func(e CPUIDEntry) bool { return e.Function == 0x40000000 }) {
		t.Fatalf("SupportedCPUID() = %d entries, %v, want KVM's leaf among them", len(ids), err)
	}
	if err := g.cpu.SetCPUID(ids); err != nil {
		t.Fatal(err)
	}
	msrs := []MSR{{Index: 0x174, Data: 0x10}, {Index: 0x175, Data: 0x2000}}
	if err := g.cpu.SetMSRs(msrs); err != nil {
		t.Fatal(err)
	}
	got := []MSR{{Index: 0x174}, {Index: 0x175}}
	if err := g.cpu.MSRs(got); err != nil || !slices.Equal(got, msrs) {
		t.Errorf("MSRs() = %v, %v, want %v", got, err, msrs)
	}
	if err := g.cpu.SetMSRs([]MSR{{Index: 0x12345}}); err == nil || !strings.Contains(err.Error(), "0x12345") {
		t.Errorf("SetMSRs of none = %v, want its number", err)
	}
	if s, err := g.cpu.MPState(); err != nil || s != Runnable {
		t.Errorf("MPState() = %v, %v, want Runnable", s, err)
	}
	if err := g.cpu.SetMPState(HaltedState); err != nil {
		t.Error(err)
	}
	if s, err := g.cpu.MPState(); err != nil || s != HaltedState {
		t.Errorf("MPState() = %v, %v, want HaltedState", s, err)
	}
	e, err := g.cpu.Events()
	if err == nil {
		err = g.cpu.SetEvents(&e)
	}
	if err != nil {
		t.Error(err)
	}
	f, err := g.cpu.FPU()
	if err == nil {
		err = g.cpu.SetFPU(&f)
	}
	if err != nil {
		t.Error(err)
	}
	c, err := g.vm.Clock()
	if err == nil {
		err = g.vm.SetClock(c)
	}
	if err != nil {
		t.Error(err)
	}
	chip := IRQChip{ID: IRQChipIOAPIC}
	if err := g.vm.IRQChipState(&chip); err != nil {
		t.Error(err)
	} else if err := g.vm.SetIRQChipState(&chip); err != nil {
		t.Error(err)
	}
	if khz, err := g.cpu.TSCKHz(); err != nil || khz < 0 {
		t.Errorf("TSCKHz() = %d, %v", khz, err)
	}
	if err := g.cpu.Paused(); err != nil {
		t.Error(err)
	}
}

func TestStats(t *testing.T) {
	g := newGuest(t, 0xe6, 0x10, 0xeb, 0xfc)
	s, err := g.cpu.Stats(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{"exits", "blocking"} {
		if _, err := s.Counter(name); err != nil {
			t.Error(err)
		}
	}
	before, _ := s.Counter("exits")
	for range 10 {
		g.run(t, ExitIO)
	}
	after, _ := s.Counter("exits")
	if after < before+10 {
		t.Errorf("exits went from %d to %d, want 10 more", before, after)
	}
	if _, err := s.Counter("no such"); err == nil {
		t.Error("Counter of an unknown name succeeded")
	}
}

// Interrupt must reach a vCPU whatever it is doing at that moment.
// TestNMI sends NMIs to real-mode code: one that comes while another is being
// handled waits for its end.
func TestNMI(t *testing.T) {
	g := newGuest(t, 0xeb, 0xfe)                                               // jmp here
	if err := g.mem.WriteAt(4*2, []byte{0x00, 0x20, 0x00, 0x00}); err != nil { // vector 2
		t.Fatal(err)
	}
	if err := g.mem.WriteAt(0x2000, []byte{0xe6, 0x80, 0xcf}); err != nil { // out 0x80, al; iret
		t.Fatal(err)
	}
	for range 2 {
		if err := g.cpu.NMI(); err != nil {
			t.Fatal(err)
		}
		g.run(t, ExitIO)
		if io, err := g.cpu.IO(); err != nil || io.Port != 0x80 {
			t.Errorf("IO() = %+v, %v, want the handler's", io, err)
		}
	}
}

func TestInterruptStorm(t *testing.T) {
	g := newGuest(t, 0xe6, 0x10, 0xeb, 0xfc) // out; jmp
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	var stop atomic.Bool
	done := make(chan struct{})
	seen := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			g.cpu.Interrupt()
			unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			<-seen
		}
		stop.Store(true)
		g.cpu.Interrupt()
		unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
	}()
	for !stop.Load() {
		if _, err := g.cpu.Run(); errors.Is(err, ErrInterrupted) {
			g.cpu.ClearInterrupt()
			select {
			case seen <- struct{}{}:
			case <-time.After(time.Millisecond):
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	<-done
}

// TestStopTheWorld has the world stop again and again while the scheduler takes a guest's thread, which is in the guest, for one that
// runs Go code.
func TestStopTheWorld(t *testing.T) {
	const exits = 50
	code := []byte{0xb9, exits, 0, 0xe6, 0x10, 0xe2, 0xfc, 0xeb, 0xfe} // mov cx, exits; out; loop; jmp to itself
	g := newGuest(t, code...)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	started, stopped := make(chan struct{}), make(chan struct{})
	var (
		once sync.Once
		end  atomic.Bool
	)
	go func() {
		defer close(stopped)
		<-started
		for range 20 {
			runtime.GC()
		}
		end.Store(true)
	}()
	interrupted := 0
	for n := 0; !end.Load(); {
		switch r, err := g.cpu.Run(); {
		case errors.Is(err, ErrInterrupted):
			interrupted++
			g.load(t, code...)
			n = 0
		case err != nil || r != ExitIO:
			t.Fatalf("Run() = %d, %v, want a port exit", r, err)
		default:
			if n++; n == exits {
				once.Do(func() { close(started) })
			}
		}
	}
	<-stopped
	if interrupted == 0 {
		t.Error("the guest's thread was never interrupted")
	}
}

func BenchmarkExit(b *testing.B) {
	g := newGuest(b, 0xe6, 0x10, 0xeb, 0xfc)
	for b.Loop() {
		g.run(b, ExitIO)
	}
}
