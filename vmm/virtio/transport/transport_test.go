package transport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
	"github.com/ashlar-hv/ashlar/vmm/virtio/transport"
)

// A device notes what the transport asks of it.
type device struct {
	kicks  [2]*os.File
	config [16]byte

	mu     sync.Mutex
	live   *virtio.Activation
	starts int
	stops  int
	fail   error // what Activate returns
}

func newDevice(t testing.TB) *device {
	t.Helper()
	d := new(device)
	for i := range d.kicks {
		f, err := eventfd.New("kick", false)
		if err != nil {
			t.Fatal(err)
		}
		d.kicks[i] = f
	}
	return d
}

const featOwn virtio.Features = 1 << 5

func (d *device) ID() virtio.ID { return virtio.IDEntropy }

func (d *device) Features() virtio.Features { return featOwn | virtio.FeatureEventIdx }

func (d *device) Queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{{MaxSize: 16, Kick: d.kicks[0]}, {MaxSize: 64, Kick: d.kicks[1]}}
}

func (d *device) ReadConfig(off uint64, b []byte) {
	clear(b)
	if off < uint64(len(d.config)) {
		copy(b, d.config[off:])
	}
}

func (d *device) WriteConfig(off uint64, b []byte) {
	if off < uint64(len(d.config)) {
		copy(d.config[off:], b)
	}
}

func (d *device) Activate(a virtio.Activation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.starts++
	d.live = &a
	return nil
}

func (d *device) Deactivate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops++
	d.live = nil
}

func (d *device) Close() error { return errors.Join(d.kicks[0].Close(), d.kicks[1].Close()) }

func (d *device) activation(t testing.TB) *virtio.Activation {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil {
		t.Fatal("device is not active")
	}
	return d.live
}

func plug(t testing.TB) (*virtiotest.Driver, *device) {
	t.Helper()
	d := newDevice(t)
	return virtiotest.NewMachine(t).Plug(d), d
}

const all = ^virtio.Features(0)

// kicked tells how often queue i was kicked.
func (d *device) kicked(t testing.TB, i int) int {
	t.Helper()
	b := make([]byte, 8)
	if _, err := unix.Read(int(d.kicks[i].Fd()), b); err != nil {
		return 0
	}
	return int(binary.NativeEndian.Uint64(b))
}

func TestIdentity(t *testing.T) {
	r, _ := plug(t)
	if id := r.Config(0, 4); id != 0x10441af4 {
		t.Errorf("identity = %#x, want 10441af4", id)
	}
	if rev := r.Config(8, 1); rev != 1 {
		t.Errorf("revision = %d, want 1", rev)
	}
	if sub := r.Config(0x2e, 2); sub < 0x40 {
		t.Errorf("subsystem = %#x: a modern device has 0x40 or more", sub)
	}
	if n := r.Common(virtiotest.NumQueues, 2); n != 2 {
		t.Errorf("num_queues = %d, want 2", n)
	}
}

func TestNegotiation(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    virtio.Features
		ok   bool
	}{
		{"all that is offered", virtio.FeatureVersion1 | virtio.FeatureEventIdx | featOwn, true},
		{"version alone", virtio.FeatureVersion1, true},
		{"no version", featOwn, false},
		{"more than offered", virtio.FeatureVersion1 | 1, false},
		{"indirect, not offered", virtio.FeatureVersion1 | virtio.FeatureIndirectDesc, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, d := plug(t)
			r.Reset()
			if got := r.Offered(); got != virtio.FeatureVersion1|virtio.FeatureEventIdx|featOwn {
				t.Errorf("offered %#x", got)
			}
			if ok := r.Accept(tt.f); ok != tt.ok {
				t.Fatalf("FEATURES_OK stays set = %v, want %v", ok, tt.ok)
			}
			if !tt.ok {
				return
			}
			r.SetCommon(virtiotest.DriverFeatureSelect, 4, 0)
			r.SetCommon(virtiotest.DriverFeature, 4, 0) // too late
			r.Queue(0, 16, 0)
			r.Start()
			if got := d.activation(t).Features; got != tt.f {
				t.Errorf("device got features %#x, want %#x", got, tt.f)
			}
		})
	}
}

func TestFeatureWindows(t *testing.T) {
	r, _ := plug(t)
	for sel, want := range map[uint64]uint64{0: 1<<5 | 1<<29, 1: 1, 2: 0, 1 << 31: 0} {
		r.SetCommon(virtiotest.DeviceFeatureSelect, 4, sel)
		if got := r.Common(virtiotest.DeviceFeature, 4); got != want {
			t.Errorf("features %d = %#x, want %#x", sel, got, want)
		}
	}
}

func TestQueueRegisters(t *testing.T) {
	r, d := plug(t)
	f := r.Negotiate(all)
	r.SetCommon(virtiotest.QueueSelect, 2, 1)
	if n := r.Common(virtiotest.QueueSize, 2); n != 64 {
		t.Errorf("queue_size = %d, want 64", n)
	}
	if v := r.Common(virtiotest.QueueVector, 2); v != virtio.NoVector {
		t.Errorf("queue_msix_vector = %#x, want NO_VECTOR", v)
	}
	r.SetCommon(virtiotest.QueueVector, 2, 3) // there are 0 to 2
	if v := r.Common(virtiotest.QueueVector, 2); v != virtio.NoVector {
		t.Errorf("queue_msix_vector for an absent vector = %#x, want NO_VECTOR", v)
	}
	ring := r.Queue(1, 32, f)
	r.SetCommon(virtiotest.QueueDesc, 4, 0x1234560) // too late
	r.SetCommon(virtiotest.QueueSize, 2, 16)
	if got := r.Common(virtiotest.QueueDesc, 8); got != ring.Desc {
		t.Errorf("queue_desc = %#x, want %#x", got, ring.Desc)
	}
	r.SetCommon(virtiotest.QueueSelect, 2, 2) // no such queue
	if n, e := r.Common(virtiotest.QueueSize, 2), r.Common(virtiotest.QueueEnable, 2); n != 0 || e != 0 {
		t.Errorf("queue 2: size %d, enable %d; want 0, 0", n, e)
	}
	r.SetCommon(virtiotest.QueueEnable, 2, 1)
	r.Start()
	a := d.activation(t)
	if a.Queues[0] != nil || a.Queues[1] == nil {
		t.Fatalf("queues = %v, want only the second", a.Queues)
	}
	c := a.Queues[1].Config
	if c.Size != 32 || c.Desc != ring.Desc || c.Driver != ring.Avail || c.Device != ring.Used || !c.EventIdx || c.Indirect {
		t.Errorf("queue 1 = %+v, want ring %+v", c, ring)
	}
	r.SetCommon(virtiotest.QueueSelect, 2, 0)
	r.SetCommon(virtiotest.QueueEnable, 2, 1) // after DRIVER_OK
	if e := r.Common(virtiotest.QueueEnable, 2); e != 0 {
		t.Error("a queue was enabled after DRIVER_OK")
	}
}

// TestWidths reads and writes registers in pieces and in one.
func TestWidths(t *testing.T) {
	r, _ := plug(t)
	r.Negotiate(all)
	r.SetCommon(virtiotest.QueueDesc, 8, 0x1122334455667788)
	if hi, b := r.Common(virtiotest.QueueDesc+4, 4), r.Common(virtiotest.QueueDesc+2, 1); hi != 0x11223344 || b != 0x66 {
		t.Errorf("parts of queue_desc: %#x, %#x", hi, b)
	}
	r.SetCommon(virtiotest.QueueDesc+1, 1, 0)
	if v := r.Common(virtiotest.QueueDesc, 8); v != 0x1122334455660088 {
		t.Errorf("queue_desc after a byte = %#x", v)
	}
	if v := r.Common(0x3a, 4); v != 0 {
		t.Errorf("behind the registers: %#x, want 0", v)
	}
	r.SetCommon(0x3a, 4, ^uint64(0))
}

func TestBadQueues(t *testing.T) {
	for name, edit := range map[string]func(*virtiotest.Ring){
		"size 0":             func(r *virtiotest.Ring) { r.Size = 0 },
		"size 3":             func(r *virtiotest.Ring) { r.Size = 3 },
		"size over the most": func(r *virtiotest.Ring) { r.Size = 32 },
		"table unaligned":    func(r *virtiotest.Ring) { r.Desc += 8 },
		"ring outside":       func(r *virtiotest.Ring) { r.Avail = 1 << 40 },
		"ring wraps":         func(r *virtiotest.Ring) { r.Used = ^uint64(3) },
	} {
		t.Run(name, func(t *testing.T) {
			r, d := plug(t)
			ring := r.NewRing(0, 16, r.Negotiate(all))
			edit(ring)
			ring.Program()
			r.AddStatus(virtio.DriverOK)
			r.WaitBroken()
			if d.starts != 0 {
				t.Error("device was activated")
			}
			r.Queue(0, 16, r.Negotiate(all))
			r.Start()
			if d.starts != 1 {
				t.Error("device was not activated after a reset")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	r, d := plug(t)
	r.Negotiate(all)
	r.SetCommon(virtiotest.DeviceStatus, 1, uint64(virtio.Acknowledge)) // clears nothing
	want := virtio.Acknowledge | virtio.Driver | virtio.FeaturesOK
	if s := r.Status(); s != want {
		t.Errorf("status = %#x, want %#x", s, want)
	}
	r.SetCommon(virtiotest.DeviceStatus, 1, uint64(want|virtio.NeedsReset)) // the device's alone
	if s := r.Status(); s != want {
		t.Errorf("status = %#x, want %#x", s, want)
	}
	r.AddStatus(virtio.DriverOK)
	r.AddStatus(virtio.DriverOK) // once is enough
	if d.starts != 1 {
		t.Errorf("activated %d times, want 1", d.starts)
	}
	r.Reset()
	r.Reset()
	if d.stops != 1 {
		t.Errorf("deactivated %d times, want 1", d.stops)
	}
	r.AddStatus(virtio.DriverOK)
	if s := r.Status(); s&virtio.NeedsReset == 0 || d.starts != 1 {
		t.Errorf("DRIVER_OK without FEATURES_OK: status %#x, activated %d times", s, d.starts)
	}
}

func TestBrokenIsLoggedOnce(t *testing.T) {
	var text bytes.Buffer
	log.SetOutput(&text)
	defer log.SetOutput(os.Stderr)
	r, d := plug(t)
	r.Negotiate(all)
	r.Start()
	old := d.activation(t)
	for range 5 {
		old.Broken(errors.New("no such chain"))
	}
	r.WaitBroken()
	if n := strings.Count(text.String(), "no such chain"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, &text)
	}
	if !strings.HasPrefix(text.String(), "virtio device 4: ") {
		t.Errorf("logged with a time stamp, which looks for files: %s", &text)
	}
	r.Negotiate(all)
	r.Start()
	old.Broken(errors.New("too late")) // of the life before
	if s := r.Status(); s&virtio.NeedsReset != 0 {
		t.Errorf("status = %#x: a life that is over broke the next", s)
	}
}

// TestFewReports breaks the device over and over: what is logged stays small.
func TestFewReports(t *testing.T) {
	var text bytes.Buffer
	log.SetOutput(&text)
	defer log.SetOutput(os.Stderr)
	r, d := plug(t)
	for range 1000 {
		r.Negotiate(all)
		r.Start()
		d.activation(t).Broken(errors.New("again"))
	}
	if n := strings.Count(text.String(), "\n"); n != 10 {
		t.Errorf("1000 breaks made %d lines, want 10", n)
	}
}

func TestActivateFails(t *testing.T) {
	r, d := plug(t)
	d.fail = errors.New("no")
	r.Negotiate(all)
	r.AddStatus(virtio.DriverOK)
	r.WaitBroken()
	r.Reset()
	if d.stops != 0 {
		t.Error("Deactivate without an Activate")
	}
}

func TestInterrupts(t *testing.T) {
	r, d := plug(t)
	f := r.Negotiate(all)
	r.Queue(1, 16, f)
	r.Start()
	q := d.activation(t).Queues[1]
	q.Interrupt()
	if !r.Vector(2).Take(virtiotest.Patience) {
		t.Error("no interrupt by the queue's vector")
	}
	var call *os.File
	q.OnCall(func(f *os.File) { call = f })
	if call != r.Vector(2).EventFD() {
		t.Error("OnCall has not told the vector's file")
	}
	r.SetCommon(virtiotest.QueueSelect, 2, 1)
	r.SetCommon(virtiotest.QueueVector, 2, virtio.NoVector)
	if call != nil {
		t.Error("OnCall has not told that there is no vector")
	}
	q.Interrupt()
	r.SetCommon(virtiotest.QueueVector, 2, 1)
	if call != r.Vector(1).EventFD() {
		t.Error("OnCall has not told the new vector's file")
	}
	gen := r.Common(virtiotest.ConfigGeneration, 1)
	d.activation(t).ConfigChanged()
	if !r.Vector(0).Take(virtiotest.Patience) || r.Common(virtiotest.ConfigGeneration, 1) == gen {
		t.Error("no interrupt, or no new generation, for a change of the configuration")
	}
	if isr := r.ISR(); isr != 0 {
		t.Errorf("ISR with MSI-X = %d, want 0", isr)
	}
	r.SetConfig(r.MSIX+2, 2, 0) // MSI-X off: polling is left
	q.Interrupt()
	if isr := r.ISR(); isr != 1 {
		t.Errorf("ISR = %d, want 1", isr)
	}
	d.activation(t).ConfigChanged()
	if isr, again := r.ISR(), r.ISR(); isr != 2 || again != 0 {
		t.Errorf("ISR = %d, then %d; want 2, 0", isr, again)
	}
}

func TestKicks(t *testing.T) {
	for _, full := range []bool{false, true} { // no room for ioeventfds: trapped
		d := newDevice(t)
		m := virtiotest.NewMachine(t)
		m.Notifier.Full = full
		if full {
			log.SetOutput(&bytes.Buffer{})
			defer log.SetOutput(os.Stderr)
		}
		r := m.Plug(d)
		want := 2
		if full {
			want = 0
		}
		if n := m.Notifier.Len(); n != want {
			t.Errorf("%d ioeventfds, want %d", n, want)
		}
		ring := r.Queue(1, 16, r.Negotiate(all))
		r.Start()
		ring.Kick()
		if a, b := d.kicked(t, 0), d.kicked(t, 1); a != 0 || b != 1 {
			t.Errorf("full %v: kicks %d, %d; want 0, 1", full, a, b)
		}
	}
}

// TestMoveBAR moves the registers while the device runs.
func TestMoveBAR(t *testing.T) {
	d := newDevice(t)
	m := virtiotest.NewMachine(t)
	r := m.Plug(d)
	r.Queue(0, 16, r.Negotiate(all))
	r.Start()
	to := r.BAR + 0x10000
	r.SetConfig(0x10, 4, to&0xffffffff)
	if m.Bus.MMIORead(r.BAR, make([]byte, 4)) || m.Notifier.Write(r.BAR+0x3000) {
		t.Error("something answers at the old place")
	}
	if !m.Notifier.Write(to+0x3000) || d.kicked(t, 0) != 1 {
		t.Error("no kick at the new place")
	}
	p := make([]byte, 1)
	if !m.Bus.MMIORead(to+virtiotest.DeviceStatus, p) || virtio.Status(p[0])&virtio.DriverOK == 0 {
		t.Errorf("status at the new place = %#x", p)
	}
	r.SetConfig(4, 2, 0)
	if n := m.Notifier.Len(); n != 0 {
		t.Errorf("%d ioeventfds with decoding off, want 0", n)
	}
}

func TestSaveRestore(t *testing.T) {
	r, d := plug(t)
	f := r.Negotiate(all)
	ring := r.Queue(1, 32, f)
	r.Start()
	r.Transport.Pause()
	s := r.Transport.Save()
	s.Queues[1].Config.Start.Avail = 7
	other, e := plug(t)
	other.M.Must(other.Transport.Restore(s))
	other.M.Bus.Restored()
	other.Transport.Resume()
	a := e.activation(t)
	if c := a.Queues[1].Config; c.Desc != ring.Desc || c.Size != 32 || c.Start.Avail != 7 || a.Features != f {
		t.Errorf("restored queue %+v, features %#x", c, a.Features)
	}
	if s := other.Status(); s&virtio.DriverOK == 0 {
		t.Errorf("restored status = %#x", s)
	}
	s.ID = virtio.IDNet
	if err := other.Transport.Restore(s); !errors.Is(err, transport.ErrState) {
		t.Errorf("Restore of another device's state = %v, want ErrState", err)
	}
	if d.stops != 1 || e.starts != 1 {
		t.Errorf("deactivated %d, activated %d times; want 1, 1", d.stops, e.starts)
	}
}

// FuzzTransport lets a driver read and write any register in any order and width.
func FuzzTransport(f *testing.F) {
	f.Add([]byte{0x14, 0, 1, 0, 1, 0x14, 0, 1, 0, 3, 0x14, 0, 1, 0, 0xb, 0x14, 0, 1, 0, 0xf})
	f.Add([]byte{0x16, 0, 2, 0, 1, 0x18, 0, 2, 0, 3, 0x20, 0, 8, 0xff, 0xff, 0, 0x30, 4, 0, 1, 0, 0x10, 1, 0, 0})
	log.SetOutput(&bytes.Buffer{})
	r, d := plug(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r.M.Reuse(t)
		ops := b[:min(len(b), 500)]
		for ; len(ops) >= 5; ops = ops[5:] {
			off := (uint64(ops[0]) | uint64(ops[1])<<8) % 0x8000
			p := make([]byte, 1<<(ops[2]%4))
			if off+uint64(len(p)) > 0x8000 {
				continue
			}
			copy(p, ops[3:5])
			r.M.Bus.MMIOWrite(r.BAR+off, p)
			r.M.Bus.MMIORead(r.BAR+off, p)
			r.SetConfig(r.Window+int(ops[0])%20, 4, uint64(ops[3])|uint64(ops[4])<<8)
			r.Config(r.Window+16, 4)
		}
		r.Reset()
		if d.live != nil || d.starts != d.stops {
			t.Fatalf("after a reset: activated %d, deactivated %d times", d.starts, d.stops)
		}
	})
}
