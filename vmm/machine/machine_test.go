package machine

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/timer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testMemory = 64 << 20

// A spec is a Spec with its descriptors.
type spec struct {
	protocol.Spec
	files []*os.File
}

func (s *spec) add(f *os.File, err error) protocol.File {
	if err != nil {
		panic(err)
	}
	s.files = append(s.files, f)
	return protocol.File(len(s.files) - 1)
}

// newSpec is a guest of one vCPU whose kernel is code.
func newSpec(t testing.TB, code []byte) *spec {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Fatalf("these tests need /dev/kvm: %v", err)
	}
	s := &spec{Spec: protocol.Spec{
		Name: "test", UUID: "00112233-4455-6677-8899-aabbccddeeff", VCPUs: 1, MemoryBytes: testMemory,
	}}
	s.KVM = s.add(os.OpenFile("/dev/kvm", os.O_RDWR, 0))
	s.Memory = s.add(memory.Create("guest", testMemory))
	s.Log = s.add(os.Create(t.TempDir() + "/log"))
	s.Entropy = s.add(os.Open("/dev/urandom"))
	s.Boot = protocol.Boot{Kernel: s.add(tinykernel.File(t, code), nil), Cmdline: "test"}
	return s
}

// loaded is the guest, ready to be started.
func (s *spec) loaded(t testing.TB) *Guest {
	t.Helper()
	g, err := FromSpec(&s.Spec, s.files)
	if err != nil {
		t.Fatalf("%s: %v", err.Field, err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	if err := g.Load(); err != nil {
		t.Fatalf("%s: %v", err.Field, err)
	}
	g.look.Close()
	look, terr := timer.Every(50 * time.Millisecond)
	if terr != nil {
		t.Fatal(terr)
	}
	g.look = look
	return g
}

func start(t testing.TB, g *Guest) {
	t.Helper()
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Stop(); <-g.Done() })
}

func ended(t testing.TB, g *Guest) protocol.Result {
	t.Helper()
	select {
	case <-g.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the guest does not end")
	}
	return g.Result()
}

func TestEnds(t *testing.T) {
	var c tinykernel.Code
	for _, tt := range []struct {
		name string
		code tinykernel.Code
		cpus int
		want protocol.Reason
	}{
		{"power off", c.PowerOff(), 1, protocol.PoweredOff},
		{"power off of one in four", c.PowerOff(), 4, protocol.PoweredOff},
		{"power off of one in sixteen", c.PowerOff(), 16, protocol.PoweredOff},
		{"reset register", c.Reset(), 1, protocol.Reset},
		{"keyboard controller", c.Out(0x64, 0xfe).Halt(), 1, protocol.Reset},
		{"halt", c.Halt(), 1, protocol.Halted},
		{"halt of one in two", c.Halt(), 2, protocol.Halted},
		{"triple fault", c.TripleFault(), 1, protocol.TripleFault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tt.code)
			s.VCPUs = tt.cpus
			g := s.loaded(t)
			start(t, g)
			if got := ended(t, g); got.Reason != tt.want {
				t.Errorf("result = %+v, want %s", got, tt.want)
			}
			if st := g.Status(); st.State != protocol.Stopped || st.Reason != tt.want {
				t.Errorf("status = %+v", st)
			}
		})
	}
}

// An idle guest is none that has halted for good, and Stop ends it.
func TestIdleAndStop(t *testing.T) {
	for _, code := range []tinykernel.Code{tinykernel.Code{}.Idle(), tinykernel.Code{}.Spin()} {
		g := newSpec(t, code).loaded(t)
		start(t, g)
		select {
		case <-g.Done():
			t.Fatalf("ended by itself: %+v", g.Result())
		case <-time.After(400 * time.Millisecond):
		}
		g.Stop()
		if got := ended(t, g); got.Reason != protocol.Killed {
			t.Errorf("result = %+v, want killed", got)
		}
	}
}

func TestConsole(t *testing.T) {
	var c tinykernel.Code
	g := newSpec(t, c.Print("hello from the guest\n").PowerOff()).loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	start(t, g)
	ended(t, g)
	g.Hub.Close()
	b, err := io.ReadAll(v)
	if err != nil || string(b) != "hello from the guest\n" {
		t.Errorf("console = %q, %v", b, err)
	}
}

// The guest counts in its memory; a pause stops the count.
func TestPauseAndResume(t *testing.T) {
	// lock inc dword [0x3000000]; jmp back
	code := tinykernel.Code{0xf0, 0xff, 0x04, 0x25, 0x00, 0x00, 0x00, 0x03, 0xeb, 0xf6}
	g := newSpec(t, code).loaded(t)
	start(t, g)
	count := func() uint32 {
		v, err := g.Memory().Load32(0x3000000)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	moved := func(from uint32) bool {
		for range 200 {
			if count() != from {
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
		return false
	}
	if !moved(0) {
		t.Fatal("the guest does not run")
	}
	for range 3 {
		if err := g.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := g.Pause(); err == nil {
			t.Error("second Pause succeeded")
		}
		at := count()
		time.Sleep(30 * time.Millisecond)
		if now := count(); now != at {
			t.Fatalf("count went from %d to %d in a pause", at, now)
		}
		if got := g.Status().State; got != protocol.Paused {
			t.Errorf("state = %s, want paused", got)
		}
		if err := g.PowerButton(); err == nil {
			t.Error("PowerButton of a paused guest succeeded")
		}
		if err := g.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := g.Resume(); err == nil {
			t.Error("second Resume succeeded")
		}
		if !moved(at) {
			t.Fatal("the guest does not go on")
		}
	}
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	if got := ended(t, g); got.Reason != protocol.Killed {
		t.Errorf("result of a paused guest = %+v, want killed", got)
	}
}

// The watcher looks at vCPUs and kicks them: they stay until it has ended.
func TestCloseWaitsForWatcher(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.PowerOff())
	g, perr := FromSpec(&s.Spec, s.files)
	if perr != nil {
		t.Fatal(perr)
	}
	release, closed := make(chan struct{}), make(chan error, 1)
	g.watcher.Go(func() { <-release })
	go func() { closed <- g.Close() }()
	select {
	case <-closed:
		t.Error("closed under the watcher")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-closed; err != nil {
		t.Errorf("Close = %v", err)
	}
}

// TestHighMemory has memory above 4 GiB, which the guest writes to, through
// page tables that it makes for it.
func TestHighMemory(t *testing.T) {
	const size = memory.LowTop + 64<<20
	c := tinykernel.Code{
		0x48, 0xb8, 0x83, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov rax, 4 GiB | a large page
		0x48, 0x89, 0x04, 0x25, 0x00, 0x10, 0x00, 0x03, // mov [0x3001000], rax
		0x48, 0xc7, 0x04, 0x25, 0x20, 0xa0, 0x00, 0x00, 0x03, 0x10, 0x00, 0x03, // mov qword [0xa020], 0x3001003
		0x48, 0xbb, 0x10, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov rbx, 4 GiB + 0x10
		0xc7, 0x03, 0x0d, 0xf0, 0xad, 0x0b, // mov dword [rbx], 0xbadf00d
	}
	s := newSpec(t, c.PowerOff())
	s.files[s.Memory].Close()
	var err error
	if s.files[s.Memory], err = memory.Create("guest", size); err != nil {
		t.Fatal(err)
	}
	s.MemoryBytes = size
	g := s.loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Fatalf("result = %+v, want powered-off", got)
	}
	if v, err := g.Memory().Load32(memory.HighBase + 0x10); err != nil || v != 0xbadf00d {
		t.Errorf("above 4 GiB the guest wrote %#x, %v", v, err)
	}
	var top uint64
	for _, r := range memoryMap(g.Memory(), g.bus.ECAMSize()) {
		if r.Type == boot.RAM {
			top = r.Base + r.Size
		}
	}
	if top != memory.HighBase+64<<20 {
		t.Errorf("the kernel is told of memory up to %#x", top)
	}
}

// The power button raises the SCI; here the guest polls the status register.
func TestPowerButton(t *testing.T) {
	c := tinykernel.Code{}.Out16(0x602, 1<<8).Print("ready")
	// mov dx, 0x600; again: in ax, dx; test ah, 1; jz again
	c = append(c, 0x66, 0xba, 0x00, 0x06, 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf9)
	g := newSpec(t, c.PowerOff()).loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	start(t, g)
	if _, err := io.ReadFull(v, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := g.PowerButton(); err != nil {
		t.Fatal(err)
	}
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v, want powered-off", got)
	}
}

// Ports and addresses where nothing is read all ones and take everything.
func TestNothingThere(t *testing.T) {
	c := tinykernel.Code{}.Out(0x80, 1).Out16(0x1234, 5)
	c = append(c,
		0x66, 0xba, 0x34, 0x12, 0xed, // mov dx, 0x1234; in eax, dx
		0xff, 0xc0, // inc eax
		0x75, 0xfe, // jnz here
		0xbb, 0x00, 0x00, 0x00, 0xc8, // mov ebx, 0xc8000000
		0x89, 0x03, // mov [rbx], eax
		0x8b, 0x03, // mov eax, [rbx]
		0xff, 0xc0, // inc eax
		0x75, 0xfe,
		0xbb, 0x00, 0x00, 0x00, 0xe0, // mov ebx, 0xe0000000: ECAM, the host bridge
		0x8b, 0x03, // mov eax, [rbx]
		0xbb, 0x00, 0x00, 0x00, 0x03, // mov ebx, 0x3000000
		0x89, 0x03, // mov [rbx], eax
	)
	g := newSpec(t, c.PowerOff()).loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Fatalf("result = %+v, want powered-off", got)
	}
	id, err := g.Memory().Load32(0x3000000)
	if err != nil || id != 0x00081b36 {
		t.Errorf("host bridge = %#x, %v", id, err)
	}
	n := g.Counters()
	if len(n.VCPUs["exits"]) != 1 || n.VCPUs["exits"][0] == 0 || n.Devices["entropy.requests"] != 0 {
		t.Errorf("counters = %v", n)
	}
	if _, ok := n.Devices["console.printed_bytes"]; !ok {
		t.Errorf("counters = %v, want the console's", n)
	}
}

func TestFromSpecRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(*spec)
		field string
		code  protocol.ErrorCode
	}{
		{"no vCPUs", func(s *spec) { s.VCPUs = 0 }, "vcpus", protocol.InvalidArgument},
		{"many vCPUs", func(s *spec) { s.VCPUs = MaxVCPUs + 1 }, "vcpus", protocol.InvalidArgument},
		{"little memory", func(s *spec) { s.MemoryBytes = 16 << 20 }, "memoryBytes", protocol.InvalidArgument},
		{"odd memory", func(s *spec) { s.MemoryBytes++ }, "memoryBytes", protocol.InvalidArgument},
		{"other memory", func(s *spec) { s.MemoryBytes *= 2 }, "memory", protocol.InvalidArgument},
		{"balloon of all memory", func(s *spec) { s.BalloonBytes = testMemory }, "balloonBytes", protocol.InvalidArgument},
		{"balloon of half a page", func(s *spec) { s.BalloonBytes = 2048 }, "balloonBytes", protocol.InvalidArgument},
		{"UUID", func(s *spec) { s.UUID = "7" }, "uuid", protocol.InvalidArgument},
		{"no KVM", func(s *spec) {
			s.files[s.KVM].Close()
			s.files[s.KVM], _ = os.Open(os.DevNull)
		}, "", protocol.Unavailable},
		{"no such descriptor", func(s *spec) { s.Boot.Kernel = 99 }, "boot.kernel", protocol.InvalidArgument},
		{"negative descriptor", func(s *spec) { s.Log = -1 }, "log", protocol.InvalidArgument},
		{"descriptor twice", func(s *spec) { s.Entropy = s.Log }, "entropy", protocol.InvalidArgument},
		{"empty disk", func(s *spec) {
			s.Disks = []protocol.Disk{{File: s.add(os.CreateTemp("", "disk"))}}
			os.Remove(s.files[len(s.files)-1].Name())
		}, "disks[0].file", protocol.InvalidArgument},
		{"disk without descriptor", func(s *spec) { s.Disks = []protocol.Disk{{File: 50}} }, "disks[0].file", protocol.InvalidArgument},
		{"long serial", func(s *spec) {
			s.Disks = []protocol.Disk{{File: s.add(os.Open(os.DevNull)), Serial: strings.Repeat("x", 21)}}
		}, "disks[0].serial", protocol.InvalidArgument},
		{"limits", func(s *spec) {
			s.Disks = []protocol.Disk{{File: s.add(os.Open(os.DevNull)), Limits: &protocol.DiskLimits{BytesPerSecond: 1}}}
		}, "disks[0].limits.bytesPerSecond", protocol.InvalidArgument},
		{"MAC", func(s *spec) { s.NICs = []protocol.NIC{{MAC: "x"}} }, "nics[0].mac", protocol.InvalidArgument},
		{"tap", func(s *spec) {
			s.NICs = []protocol.NIC{{MAC: "52:54:00:00:00:01", Pairs: []protocol.Pair{{Tap: s.add(os.Open(os.DevNull))}}}}
		}, "nics[0]", protocol.InvalidArgument},
		{"many disks", func(s *spec) { s.Disks = make([]protocol.Disk, 30) }, "disks", protocol.InvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Halt())
			tt.edit(s)
			s.refused(t, tt.code, tt.field)
			for _, f := range s.files {
				if _, err := f.Stat(); err == nil {
					t.Errorf("%s is still open", f.Name())
				}
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		edit        func(*spec)
	}{
		{"kernel", "boot.kernel", func(s *spec) { s.Boot.Kernel = s.add(os.Open("machine.go")) }},
		{"command line", "boot.cmdline", func(s *spec) { s.Boot.Cmdline = strings.Repeat("x", 300) }},
		{"initramfs", "boot.initramfs", func(s *spec) { f := s.add(os.Open(os.DevNull)); s.Boot.Initramfs = &f }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Halt())
			tt.edit(s)
			g, err := FromSpec(&s.Spec, s.files)
			if err != nil {
				t.Fatal(err)
			}
			if err = g.Load(); err == nil || err.Field != tt.field || err.Code != protocol.InvalidArgument {
				t.Errorf("Load = %+v, want one at %s", err, tt.field)
			}
			if err := g.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
	}
}

func TestVector(t *testing.T) {
	g := newSpec(t, tinykernel.Code{}.Halt()).loaded(t)
	v, err := g.MSIRouter().NewVector()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []uint64{0, 0x1000, 1 << 32, 0xfed00000, 0x1fee00000} {
		if err := v.Set(bad, 0x41); err == nil {
			t.Errorf("Set(%#x) succeeded", bad)
		}
	}
	if v.Pending() {
		t.Error("a new vector is pending")
	}
	ones := binary.NativeEndian.AppendUint64(nil, 1)
	v.EventFD().Write(ones)
	for range 2 { // looking does not take it away
		if !v.Pending() {
			t.Error("a masked vector forgets its signal")
		}
	}
	for _, f := range []func() error{
		func() error { return v.Set(0xfee00000, 0x41) }, v.Unmask, v.Unmask,
		func() error { return v.Set(0xfee01000, 0x42) }, v.Mask, v.Mask, v.Unmask, v.Close,
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	// Its GSI is free again.
	w, err := g.MSIRouter().NewVector()
	if err != nil {
		t.Fatal(err)
	}
	if w.(*vector).gsi != v.(*vector).gsi {
		t.Errorf("GSI %d, want %d again", w.(*vector).gsi, v.(*vector).gsi)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A guest leaves no descriptor behind, and neither does one that was refused.
func TestNothingLeft(t *testing.T) {
	open := func() int {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	once := func(cpus int, disk protocol.File) {
		s := newSpec(t, tinykernel.Code{}.PowerOff())
		s.VCPUs = cpus
		if disk >= 0 {
			s.Disks = []protocol.Disk{{File: disk}}
		}
		g, perr := FromSpec(&s.Spec, s.files)
		if perr != nil {
			return
		}
		if perr := g.Load(); perr != nil {
			t.Fatal(perr)
		}
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		<-g.Done()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	once(2, -1) // what the runtime opens once
	before := open()
	for range 3 {
		once(2, -1)
		once(2, 77)
		once(MaxVCPUs+1, -1)
		s := newSpec(t, tinykernel.Code{}.PowerOff())
		g, perr := FromSpec(&s.Spec, s.files)
		if perr != nil {
			t.Fatal(perr)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// Everything at once, for the race detector.
func TestStorm(t *testing.T) {
	c := tinykernel.Code{}.Print(".")
	c = append(c, 0xeb, byte(-len(c)-2)) // again
	g := newSpec(t, nmiCode(c)).loaded(t)
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	start(t, g)
	read(t, v, 1) // from now on it can take NMIs
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			if g.Pause() == nil {
				g.Resume()
			}
		}
	}()
	for range 50 {
		g.Counters()
		g.PowerButton()
		g.NMI()
		g.haltedForGood()
	}
	<-done
	g.Stop()
	if got := ended(t, g); got.Reason != protocol.Killed {
		t.Errorf("result = %+v", got)
	}
}

func BenchmarkStartToPowerOff(b *testing.B) {
	for b.Loop() {
		g := newSpec(b, tinykernel.Code{}.PowerOff()).loaded(b)
		if err := g.Start(); err != nil {
			b.Fatal(err)
		}
		<-g.Done()
	}
}
