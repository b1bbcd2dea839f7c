package balloon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

var all = virtio.OrderedRing | featStatsVQ | featDeflateOnOOM | featReporting

func TestMain(m *testing.M) { os.Exit(virtiotest.Both(m, &all)) }

const (
	reportQueue = 3 // with all features
	maxTarget   = virtiotest.MemorySize - 1<<20
)

func plug(t testing.TB) (*Device, *virtiotest.Driver) {
	t.Helper()
	d, err := New(Config{Max: maxTarget, Target: 16 * PageSize})
	if err != nil {
		t.Fatal(err)
	}
	return d, virtiotest.NewMachine(t).Plug(d)
}

// list is page numbers in guest memory.
func list(m *virtiotest.Machine, pages ...uint32) []virtiotest.Buf {
	var b []byte
	for _, p := range pages {
		b = binary.LittleEndian.AppendUint32(b, p)
	}
	return m.Put(b).Cut(8)
}

// fillPages writes to pages, and says which of them read as zeros.
func fillPages(m *virtiotest.Machine, pages ...uint32) (zeros func() []uint32) {
	m.T.Helper()
	for _, p := range pages {
		m.Must(m.Mem.WriteAt(uint64(p)*PageSize, bytes.Repeat([]byte{0x5a}, PageSize)))
	}
	return func() []uint32 {
		var out []uint32
		for _, p := range pages {
			b := m.Bytes(virtiotest.Buf{GPA: uint64(p) * PageSize, Len: PageSize})
			if bytes.Equal(b, make([]byte, PageSize)) {
				out = append(out, p)
			} else if !bytes.Equal(b, bytes.Repeat([]byte{0x5a}, PageSize)) {
				m.T.Errorf("page %d is half of what it was", p)
			}
		}
		return out
	}
}

func TestInflateAndDeflate(t *testing.T) {
	for _, f := range []virtio.Features{0, virtio.FeatureEventIdx, all} {
		dev, d := plug(t)
		f = d.Negotiate(f)
		in, out := d.Queue(inflateQueue, 8, f), d.Queue(deflateQueue, 8, f)
		d.Start()
		zeros := fillPages(d.M, 600, 601, 602, 603, 700, 701, 800)
		// Out of order, one twice, two chains.
		in.Do(list(d.M, 602, 700, 601, 603, 601), nil)
		in.Do(list(d.M, 800), nil)
		if got := zeros(); !equal(got, 601, 602, 603, 700, 800) {
			t.Errorf("pages given back: %v", got)
		}
		out.Do(list(d.M, 601, 602), nil)
		d.M.Must(d.M.Mem.Store32(601*PageSize, 7))
		if v, err := d.M.Mem.Load32(601 * PageSize); err != nil || v != 7 {
			t.Errorf("a page taken back reads %d, %v", v, err)
		}
		c := dev.Counters()
		if c["inflated_bytes"] != 6*PageSize || c["deflated_bytes"] != 2*PageSize || c["failures"] != 0 {
			t.Errorf("counters = %v", c)
		}
	}
}

func equal(got []uint32, want ...uint32) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		pages []uint32
		want  int
	}{
		{[]uint32{7}, 1}, {[]uint32{7, 8, 9}, 3}, {[]uint32{7, 7, 8}, 3}, {[]uint32{7, 9, 10}, 1}, {[]uint32{0, 1, 1, 3}, 3},
	} {
		if got := run(tt.pages); got != tt.want {
			t.Errorf("run(%v) = %d, want %d", tt.pages, got, tt.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	dev, d := plug(t)
	room := d.M.Room(16)
	for name, add := range map[string]func(in, out, stats, report *virtiotest.Ring) *virtiotest.Ring{
		"page past the end": func(in, _, _, _ *virtiotest.Ring) *virtiotest.Ring {
			in.Add(list(d.M, virtiotest.MemorySize/PageSize), nil)
			return in
		},
		"highest page": func(in, _, _, _ *virtiotest.Ring) *virtiotest.Ring {
			in.Add(list(d.M, 1<<32-1), nil)
			return in
		},
		"deflate past the end": func(_, out, _, _ *virtiotest.Ring) *virtiotest.Ring {
			out.Add(list(d.M, 1<<31), nil)
			return out
		},
		"part of a number": func(in, _, _, _ *virtiotest.Ring) *virtiotest.Ring {
			in.Add([]virtiotest.Buf{{GPA: room.GPA, Len: 6}}, nil)
			return in
		},
		"writable numbers": func(in, _, _, _ *virtiotest.Ring) *virtiotest.Ring {
			in.Add(nil, []virtiotest.Buf{room})
			return in
		},
		"writable statistics": func(_, _, stats, _ *virtiotest.Ring) *virtiotest.Ring {
			stats.Add(nil, []virtiotest.Buf{room})
			return stats
		},
		"readable free pages": func(_, _, _, report *virtiotest.Ring) *virtiotest.Ring {
			report.Add([]virtiotest.Buf{room}, nil)
			return report
		},
		"free pages outside": func(_, _, _, report *virtiotest.Ring) *virtiotest.Ring {
			report.Add(nil, []virtiotest.Buf{{GPA: virtiotest.MemorySize - PageSize, Len: 2 * PageSize}})
			return report
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := d.Negotiate(all)
			in, out := d.Queue(inflateQueue, 8, f), d.Queue(deflateQueue, 8, f)
			stats, report := d.Queue(statsQueue, 8, f), d.Queue(reportQueue, 8, f)
			d.Start()
			add(in, out, stats, report).Kick()
			d.WaitBroken()
		})
	}
	if c := dev.Counters(); c["inflated_bytes"] != 0 || c["reported_bytes"] != 0 {
		t.Errorf("counters = %v", c)
	}
	f := d.Negotiate(all)
	in := d.Queue(inflateQueue, 8, f)
	d.Start()
	in.Do(list(d.M, 900), nil)
}

// A driver may give away its own rings: they read as zeros, which is its own trouble.
func TestOwnRings(t *testing.T) {
	_, d := plug(t)
	f := d.Negotiate(all)
	in := d.Queue(inflateQueue, 8, f)
	d.Start()
	in.Add(list(d.M, uint32(in.Desc/PageSize), uint32(in.Avail/PageSize), uint32(in.Used/PageSize)), nil)
	in.Kick()
	d.Reset()
	in = d.Queue(inflateQueue, 8, d.Negotiate(all))
	d.Start()
	zeros := fillPages(d.M, 900)
	in.Do(list(d.M, 900), nil)
	if got := zeros(); !equal(got, 900) {
		t.Errorf("after a reset: pages given back: %v", got)
	}
}

// A chain that names a billion pages does not keep a reset waiting.
func TestResetInTheMidst(t *testing.T) {
	_, d := plug(t)
	f := d.Negotiate(all)
	in := d.Queue(inflateQueue, queueSize, f)
	d.Start()
	many := make([]virtiotest.Buf, 120)
	for i := range many { // zeros: page 0, again and again
		many[i] = virtiotest.Buf{GPA: 1 << 20, Len: 3 << 20}
	}
	d.M.Must(d.M.Mem.Zero(1<<20, 3<<20))
	in.Add(many, nil)
	in.Kick()
	d.Reset()
}

// Pause and resume in the midst of a chain lose none of it.
func TestPauseInTheMidst(t *testing.T) {
	dev, d := plug(t)
	f := d.Negotiate(all)
	in := d.Queue(inflateQueue, 64, f)
	d.Start()
	var pages []uint32
	for i := range uint32(3 * batch) {
		pages = append(pages, 800+i%64)
	}
	var b []byte
	for _, p := range pages {
		b = binary.LittleEndian.AppendUint32(b, p)
	}
	zeros := fillPages(d.M, 800, 863)
	head := in.Add([]virtiotest.Buf{d.M.Put(b)}, nil)
	in.Kick()
	for range 5 {
		d.Transport.Pause()
		d.Transport.Resume()
	}
	if got, _ := in.Wait(); got != head {
		t.Errorf("used chain %d, want %d", got, head)
	}
	if got := zeros(); !equal(got, 800, 863) {
		t.Errorf("pages given back: %v", got)
	}
	if n := dev.Counters()["inflated_bytes"]; n < uint64(len(pages))*PageSize {
		t.Errorf("inflated_bytes = %d", n)
	}
}

func TestTarget(t *testing.T) {
	dev, d := plug(t)
	if got := d.Device(cfgNumPages, 4); got != 16 {
		t.Errorf("num_pages = %d at first, want 16", got)
	}
	d.Negotiate(all)
	d.Start()
	config := d.Vector(0)
	for config.Take(0) { // from what was set before
	}
	set := func(bytes uint64) {
		t.Helper()
		if err := dev.SetTarget(bytes); err != nil {
			t.Fatal(err)
		}
	}
	before := d.Common(virtiotest.ConfigGeneration, 1)
	set(32 * PageSize)
	if !config.Take(virtiotest.Patience) || d.Device(cfgNumPages, 4) != 32 {
		t.Errorf("num_pages = %d, want 32 and an interrupt", d.Device(cfgNumPages, 4))
	}
	if d.Common(virtiotest.ConfigGeneration, 1) == before {
		t.Error("the configuration's generation is the same")
	}
	d.SetDevice(cfgActual, 4, 30)
	d.SetDevice(cfgNumPages, 4, 1) // is not the driver's
	d.SetDevice(cfgActual+4, 4, 1)
	if dev.Actual() != 30*PageSize || dev.Target() != 32*PageSize {
		t.Errorf("actual = %d, target = %d pages", dev.Actual()/PageSize, dev.Target()/PageSize)
	}
	// In a pause the driver cannot be told; afterwards it is. The balloon stays.
	d.Transport.Pause()
	set(8 * PageSize)
	if config.Take(0) {
		t.Error("an interrupt in a pause")
	}
	d.Transport.Resume()
	if !config.Take(virtiotest.Patience) || dev.Actual() != 30*PageSize {
		t.Errorf("after a pause: no interrupt, or actual = %d", dev.Actual())
	}
	// A reset empties the balloon. What it was asked for stays.
	d.Reset()
	if dev.Actual() != 0 || dev.Target() != 8*PageSize || d.Device(cfgNumPages, 4) != 8 {
		t.Errorf("after a reset: actual = %d, target = %d", dev.Actual(), dev.Target())
	}
	for _, bytes := range []uint64{1, PageSize + 1, maxTarget + PageSize, 1 << 63} {
		if err := dev.SetTarget(bytes); !errors.Is(err, ErrTarget) {
			t.Errorf("SetTarget(%d) = %v, want ErrTarget", bytes, err)
		}
	}
}

func stat(tag uint16, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(nil, tag), v)
}

func TestStatistics(t *testing.T) {
	dev, d := plug(t)
	if s := dev.Statistics(virtiotest.Patience); !s.Time.IsZero() {
		t.Errorf("without a driver: %v", s)
	}
	f := d.Negotiate(all)
	r := d.Queue(statsQueue, 8, f)
	d.Start()
	// What the driver had to say at first is old news.
	head := r.Add([]virtiotest.Buf{d.M.Put(stat(4, 1))}, nil)
	r.Kick()
	start := time.Now()
	got := make(chan Statistics)
	go func() { got <- dev.Statistics(virtiotest.Patience) }()
	if used, n := r.Wait(); used != head || n != 0 {
		t.Errorf("used chain %d with %d bytes", used, n)
	}
	b := append(stat(4, 1<<40), stat(5, 7)...)
	b = append(append(b, stat(999, 3)...), 1, 2, 3)
	head = r.Add([]virtiotest.Buf{d.M.Put(b)}, nil)
	r.Kick()
	s := <-got
	if want := map[string]uint64{"free_bytes": 1 << 40, "total_bytes": 7}; !maps.Equal(s.Values, want) || s.Time.Before(start) {
		t.Errorf("statistics = %v, want %v after %v", s, want, start)
	}
	// Asked again at once, it is not the driver that is asked.
	dev.mu.Lock()
	dev.asked = time.Now().Add(time.Hour)
	dev.mu.Unlock()
	if again := dev.Statistics(virtiotest.Patience); !again.Time.Equal(s.Time) || dev.Counters()["polls"] != 1 {
		t.Errorf("statistics = %v, polls = %d", again, dev.Counters()["polls"])
	}
	// A pause gives the buffer to nobody.
	d.Transport.Pause()
	d.Transport.Resume()
	dev.mu.Lock()
	dev.asked = time.Time{}
	dev.mu.Unlock()
	go func() { got <- dev.Statistics(0) }()
	if used, _ := r.Wait(); used != head {
		t.Errorf("after a pause: used chain %d, want %d", used, head)
	}
	if s := <-got; !s.Time.Equal(s.Time) || s.Values["total_bytes"] != 7 {
		t.Errorf("of a driver that is slow: %v", s)
	}
	d.Reset()
	if s := dev.Statistics(0); !s.Time.IsZero() || s.Values != nil {
		t.Errorf("after a reset: %v", s)
	}
}

func TestReporting(t *testing.T) {
	// As Linux numbers them, a queue that is not there has no number.
	for _, tt := range []struct {
		features virtio.Features
		queue    int
	}{{all, 3}, {all &^ featStatsVQ, 2}} {
		dev, d := plug(t)
		r := d.Queue(tt.queue, 8, d.Negotiate(tt.features))
		d.Start()
		zeros := fillPages(d.M, 600, 601, 602, 700)
		r.Do(nil, []virtiotest.Buf{{GPA: 600 * PageSize, Len: 2 * PageSize}, {GPA: 700*PageSize - 1, Len: PageSize + 2}})
		if got := zeros(); !equal(got, 600, 601, 700) {
			t.Errorf("pages reported: %v", got)
		}
		if dev.Actual() != 0 || dev.Counters()["reported_bytes"] == 0 {
			t.Errorf("actual = %d, counters = %v", dev.Actual(), dev.Counters())
		}
	}
}

func TestSaveAndRestore(t *testing.T) {
	dev, d := plug(t)
	d.SetDevice(cfgActual, 4, 5)
	if err := dev.SetTarget(7 * PageSize); err != nil {
		t.Fatal(err)
	}
	other, _ := plug(t)
	if err := other.Restore(dev.Save()); err != nil {
		t.Fatal(err)
	}
	if other.Target() != 7*PageSize || other.Actual() != 5*PageSize {
		t.Errorf("target = %d, actual = %d", other.Target(), other.Actual())
	}
	if err := other.Restore(State{Target: 1}); !errors.Is(err, ErrTarget) {
		t.Errorf("Restore of a bad state = %v", err)
	}
}

// FuzzBalloon lets a driver fill the descriptors of each queue, and what they point
// to, at will. It may give away any page of its own, rings included.
func FuzzBalloon(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}, uint16(1), []byte{1, 3, 0, 0, 2, 3, 0, 0})
	f.Add(uint8(1), []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}, uint16(1), []byte{1, 3, 0, 0, 255, 255, 255, 255})
	f.Add(uint8(2), []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0}, uint16(1), append(stat(4, 5), stat(70, 6)...))
	f.Add(uint8(3), []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 2, 0, 0, 0}, uint16(1), []byte{})
	dev, d := plug(f)
	var rings []*virtiotest.Ring
	for i := range queueCount {
		rings = append(rings, d.Queue(i, 16, d.Negotiate(all)))
	}
	f.Fuzz(func(t *testing.T, which uint8, desc []byte, idx uint16, data []byte) {
		d.M.Reuse(t)
		d.M.Must(d.M.Mem.WriteAt(2<<20, data[:min(len(data), 1<<20)]))
		r := rings[which%queueCount]
		r.Fuzz(d.Negotiate(virtiotest.FuzzFeatures(all, idx)), desc, idx)
		d.AddStatus(virtio.DriverOK)
		r.Kick()
		dev.Statistics(time.Millisecond)
		r.Settle()
		d.Reset()
	})
}
