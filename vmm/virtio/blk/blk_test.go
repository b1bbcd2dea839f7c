package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

var all = ^virtio.Features(0)

func TestMain(m *testing.M) {
	if how := os.Getenv(costDriver); how != "" {
		if err := drive(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(virtiotest.Both(m, &all))
}

// disk makes a file of random bytes and opens it with flags.
func disk(t testing.TB, size int, flags int) (*os.File, []byte) {
	t.Helper()
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f, b
}

// A rig is a disk with its driver started.
type rig struct {
	*virtiotest.Driver
	dev   *Device
	rings []*virtiotest.Ring
	name  string
	want  []byte // what is to be on the disk
}

func newRig(t testing.TB, c Config, size, flags int, want virtio.Features) *rig {
	t.Helper()
	f, content := disk(t, size, flags)
	c.File = f
	dev, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Driver: virtiotest.NewMachine(t).Plug(dev), dev: dev, name: f.Name(), want: content}
	r.start(want)
	return r
}

// start negotiates and starts all queues.
func (r *rig) start(want virtio.Features) {
	got := r.Negotiate(want)
	r.rings = nil
	for i := range r.Common(virtiotest.NumQueues, 2) {
		r.rings = append(r.rings, r.Queue(int(i), 64, got))
	}
	r.Start()
}

func header(typ uint32, sector uint64) []byte {
	h := binary.LittleEndian.AppendUint32(nil, typ)
	h = binary.LittleEndian.AppendUint32(h, 0)
	return binary.LittleEndian.AppendUint64(h, sector)
}

// do makes a request with out behind the header and in bytes of room before the
// status; it returns what was read, the status, and the used length.
func (r *rig) do(ring *virtiotest.Ring, typ uint32, sector uint64, out []byte, in int) ([]byte, byte, uint32) {
	r.M.T.Helper()
	defer r.M.Borrow()() // Do waits until the device is done with all of it
	readable := []virtiotest.Buf{r.M.Put(header(typ, sector))}
	if len(out) > 0 {
		readable = append(readable, r.M.Put(out).Cut(4096)...)
	}
	room := r.M.Room(in)
	status := r.M.Room(1)
	n := ring.Do(readable, append(room.Cut(4096), status))
	return r.M.Bytes(room), r.M.Bytes(status)[0], n
}

// content reads the file as the host sees it.
func (r *rig) content() []byte {
	r.M.T.Helper()
	b, err := os.ReadFile(r.name)
	r.M.Must(err)
	return b
}

func TestReadWrite(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags int
		feats virtio.Features
	}{
		{"buffered", os.O_RDWR, all},
		{"no ring features", os.O_RDWR, 0},
		{"no flush", os.O_RDWR, all &^ featFlush &^ featConfigWCE},
		{"direct", os.O_RDWR | unix.O_DIRECT, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{Queues: 2}, 1<<20, tt.flags, tt.feats)
			block := int(r.dev.geo.logical)
			for i := range 40 {
				ring := r.rings[i%2]
				n := block * (1 + i%5)
				sector := uint64(i*block/SectorSize) * 3
				off := int(sector) * SectorSize
				if i%2 == 0 {
					out := bytes.Repeat([]byte{byte(i)}, n)
					copy(r.want[off:], out)
					if _, s, used := r.do(ring, typeOut, sector, out, 0); s != statusOK || used != 1 {
						t.Fatalf("write %d: status %d, used length %d, want 0, 1", i, s, used)
					}
				}
				got, s, used := r.do(ring, typeIn, sector, nil, n)
				if s != statusOK || int(used) != n+1 {
					t.Fatalf("read %d: status %d, used length %d, want 0, %d", i, s, used, n+1)
				}
				if !bytes.Equal(got, r.want[off:off+n]) {
					t.Fatalf("read %d: other bytes than were written", i)
				}
			}
			if !bytes.Equal(r.content(), r.want) {
				t.Error("file has other bytes than were written")
			}
		})
	}
}

// TestBounce gives O_DIRECT buffers that it cannot take as they are.
func TestBounce(t *testing.T) {
	r := newRig(t, Config{}, 1<<20, os.O_RDWR|unix.O_DIRECT, all)
	n := 3 * bounceSize
	for _, skew := range []uint64{1, 7, 100} {
		out := bytes.Repeat([]byte{byte(skew), 2, 3}, n/3)
		buf := r.M.Room(n + 200)
		buf.GPA, buf.Len = buf.GPA+skew, uint32(n)
		r.M.Must(r.M.Mem.WriteAt(buf.GPA, out))
		status := r.M.Room(1)
		r.rings[0].Do([]virtiotest.Buf{r.M.Put(header(typeOut, 128)), buf}, []virtiotest.Buf{status})
		if s := r.M.Bytes(status)[0]; s != statusOK {
			t.Fatalf("write: status %d", s)
		}
		r.M.Must(r.M.Mem.Zero(buf.GPA, uint64(n)))
		r.rings[0].Do([]virtiotest.Buf{r.M.Put(header(typeIn, 128))}, append(buf.Cut(5000), status))
		if s := r.M.Bytes(status)[0]; s != statusOK || !bytes.Equal(r.M.Bytes(buf), out) {
			t.Fatalf("read at skew %d: status %d, or other bytes", skew, s)
		}
	}
}

func TestStatus(t *testing.T) {
	const sectors = 2048
	for _, tt := range []struct {
		name     string
		readOnly bool
		typ      uint32
		sector   uint64
		out, in  int
		want     byte
	}{
		{"last sector", false, typeIn, sectors - 1, 0, 512, statusOK},
		{"past the end", false, typeIn, sectors, 0, 512, statusIOErr},
		{"across the end", false, typeIn, sectors - 1, 0, 1024, statusIOErr},
		{"sector wraps", false, typeIn, 1<<64 - 1, 0, 512, statusIOErr},
		{"offset wraps", false, typeOut, 1 << 55, 512, 0, statusIOErr},
		{"half a sector", false, typeIn, 0, 0, 256, statusIOErr},
		{"nothing", false, typeIn, 0, 0, 0, statusOK},
		{"write past the end", false, typeOut, sectors, 512, 0, statusIOErr},
		{"write to read-only", true, typeOut, 0, 512, 0, statusIOErr},
		{"flush", false, typeFlush, 0, 0, 0, statusOK},
		{"flush of read-only", true, typeFlush, 0, 0, 0, statusOK},
		{"unknown", false, 77, 0, 0, 0, statusUnsupported},
		{"discard of read-only", true, typeDiscard, 0, 16, 0, statusIOErr},
		{"discard without segments", false, typeDiscard, 0, 0, 0, statusIOErr},
		{"discard of half a segment", false, typeDiscard, 0, 8, 0, statusIOErr},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := os.O_RDWR
			if tt.readOnly {
				flags = os.O_RDONLY
			}
			r := newRig(t, Config{ReadOnly: tt.readOnly}, sectors*SectorSize, flags, all)
			if _, s, _ := r.do(r.rings[0], tt.typ, tt.sector, make([]byte, tt.out), tt.in); s != tt.want {
				t.Errorf("status = %d, want %d", s, tt.want)
			}
			if tt.want != statusOK && !bytes.Equal(r.content(), r.want) {
				t.Error("disk has changed")
			}
		})
	}
}

func segment(sector uint64, sectors, flags uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, sector)
	b = binary.LittleEndian.AppendUint32(b, sectors)
	return binary.LittleEndian.AppendUint32(b, flags)
}

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		name  string
		typ   uint32
		segs  []byte
		zero  [][2]int // sectors from, to that read as zeros afterwards
		want  byte
		feats virtio.Features
	}{
		{"zeroes", typeWriteZeroes, segment(8, 16, 0), [][2]int{{8, 24}}, statusOK, all},
		{"zeroes, unmap", typeWriteZeroes, segment(8, 16, 1), [][2]int{{8, 24}}, statusOK, all},
		{"zeroes, unaligned", typeWriteZeroes, segment(3, 2, 0), [][2]int{{3, 5}}, statusOK, all},
		{"zeroes, write-through", typeWriteZeroes, segment(3, 1000, 0), [][2]int{{3, 1003}}, statusOK, 0},
		{"two segments", typeWriteZeroes, append(segment(0, 1, 0), segment(100, 8, 1)...), [][2]int{{0, 1}, {100, 108}}, statusOK, all},
		{"empty segment", typeWriteZeroes, segment(5, 0, 0), nil, statusOK, all},
		{"discard", typeDiscard, segment(16, 8, 0), [][2]int{{16, 24}}, statusOK, all},
		{"discard with unmap", typeDiscard, segment(16, 8, 1), nil, statusUnsupported, all},
		{"unknown flag", typeWriteZeroes, segment(16, 8, 2), nil, statusUnsupported, all},
		{"second past the end", typeWriteZeroes, append(segment(0, 1, 0), segment(2047, 2, 1)...), nil, statusIOErr, all},
		{"too many sectors", typeWriteZeroes, segment(0, maxRangeSectors+1, 0), nil, statusIOErr, all},
		{"too many segments", typeDiscard, bytes.Repeat(segment(0, 1, 0), 17), nil, statusIOErr, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{}, 1<<20, os.O_RDWR, tt.feats)
			_, s, _ := r.do(r.rings[0], tt.typ, 0, tt.segs, 0)
			if s != tt.want {
				t.Fatalf("status = %d, want %d", s, tt.want)
			}
			for _, z := range tt.zero {
				clear(r.want[z[0]*SectorSize : z[1]*SectorSize])
			}
			if !bytes.Equal(r.content(), r.want) {
				t.Error("disk has other bytes than wanted")
			}
		})
	}
}

func TestSerialAndConfig(t *testing.T) {
	r := newRig(t, Config{Serial: "ASHLAR-1", Queues: 3}, 1<<20, os.O_RDWR, all)
	got, s, used := r.do(r.rings[2], typeID, 0, nil, SerialSize)
	want := append([]byte("ASHLAR-1"), make([]byte, 12)...)
	if s != statusOK || used != SerialSize+1 || !bytes.Equal(got, want) {
		t.Errorf("GET_ID = %q, status %d, used length %d; want %q, 0, 21", got, s, used, want)
	}
	if got, s, _ := r.do(r.rings[0], typeID, 0, nil, 4); s != statusOK || string(got) != "ASHL" {
		t.Errorf("GET_ID into 4 bytes = %q, status %d", got, s)
	}
	if n := r.Device(cfgCapacity, 8); n != 2048 {
		t.Errorf("capacity = %d sectors, want 2048", n)
	}
	if n := r.Device(cfgNumQueues, 2); n != 3 {
		t.Errorf("num_queues = %d, want 3", n)
	}
	if n := r.Device(cfgBlkSize, 4); n != 512 {
		t.Errorf("blk_size = %d, want 512", n)
	}
	if n := r.Device(configSize+8, 4); n != 0 {
		t.Errorf("behind the configuration = %#x, want 0", n)
	}
	r.SetDevice(cfgCapacity, 8, 1)
	if n := r.Device(cfgCapacity, 8); n != 2048 {
		t.Errorf("capacity after a write = %d sectors, want 2048", n)
	}
	r.SetDevice(cfgWriteback, 1, 0)
	if n := r.Device(cfgWriteback, 1); n != 0 {
		t.Errorf("writeback = %d, want 0", n)
	}
	r.SetDevice(cfgWriteback, 1, 9)
	if n := r.Device(cfgWriteback, 1); n != 0 {
		t.Errorf("writeback after a bad value = %d, want 0", n)
	}
}

func TestWriteThrough(t *testing.T) {
	d := &Device{}
	for _, tt := range []struct {
		feats     virtio.Features
		writeback uint32
		want      bool
	}{
		{featFlush, 1, false}, {0, 1, true}, {featFlush | featConfigWCE, 1, false},
		{featFlush | featConfigWCE, 0, true}, {featConfigWCE, 1, false}, {featFlush, 0, false},
	} {
		d.writeback.Store(tt.writeback)
		if got := d.writeThrough(tt.feats); got != tt.want {
			t.Errorf("writeThrough(%#x) with writeback %d = %v, want %v", tt.feats, tt.writeback, got, tt.want)
		}
	}
}

// A driver that can choose the cache's mode but not flush starts without a
// volatile cache.
func TestWriteThroughWithoutFlush(t *testing.T) {
	for _, tt := range []struct {
		feats virtio.Features
		want  uint64
	}{{all, 1}, {all &^ featFlush, 0}} {
		r := newRig(t, Config{}, 1<<20, os.O_RDWR, tt.feats)
		if got := r.Device(cfgWriteback, 1); got != tt.want {
			t.Errorf("writeback with features %#x = %d, want %d", tt.feats, got, tt.want)
		}
	}
}

// TestHostError lets the file become shorter than the disk.
func TestHostError(t *testing.T) {
	r := newRig(t, Config{}, 1<<20, os.O_RDWR, all)
	if err := os.Truncate(r.name, 4096); err != nil {
		t.Fatal(err)
	}
	if _, s, used := r.do(r.rings[0], typeIn, 100, nil, 4096); s != statusIOErr || used != 0 {
		t.Errorf("status %d, used length %d, want 1, 0", s, used)
	}
	if _, s, _ := r.do(r.rings[0], typeIn, 4, nil, 4096); s != statusIOErr {
		t.Errorf("read across the new end: status %d, want 1", s)
	}
	if n := r.dev.Counters()["errors"]; n != 2 {
		t.Errorf("errors = %d, want 2", n)
	}
}

func TestMalformed(t *testing.T) {
	r := newRig(t, Config{Queues: 2}, 1<<20, os.O_RDWR, all)
	for _, tt := range []struct {
		name               string
		readable, writable []virtiotest.Buf
	}{
		{"empty", nil, []virtiotest.Buf{r.M.Room(1)}},
		{"short header", []virtiotest.Buf{r.M.Room(15)}, []virtiotest.Buf{r.M.Room(1)}},
		{"no status", []virtiotest.Buf{r.M.Put(header(typeFlush, 0))}, nil},
		{"outside memory", []virtiotest.Buf{r.M.Put(header(typeIn, 0))}, []virtiotest.Buf{{GPA: 1 << 40, Len: 513}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The requests before the malformed one are still answered.
			first := r.M.Room(1)
			r.rings[0].Add([]virtiotest.Buf{r.M.Put(header(typeFlush, 0))}, []virtiotest.Buf{first})
			r.rings[0].Add(tt.readable, tt.writable)
			r.rings[0].Kick()
			r.WaitBroken()
			r.Reset()
			if s := r.M.Bytes(first)[0]; s != statusOK {
				t.Errorf("request before the malformed one: status %d, want 0", s)
			}
			r.start(all)
			if _, s, _ := r.do(r.rings[1], typeIn, 0, nil, 512); s != statusOK {
				t.Errorf("after the reset: status %d, want 0", s)
			}
		})
	}
}

// TestResetWhileBusy resets under load: when the status reads 0, nothing is
// written to guest memory any more.
func TestResetWhileBusy(t *testing.T) {
	r := newRig(t, Config{Queues: 2}, 1<<20, os.O_RDWR, all)
	for round := range 30 {
		room := r.M.Room(4096)
		for _, ring := range r.rings {
			for range 16 {
				ring.Add([]virtiotest.Buf{r.M.Put(header(typeIn, 8))}, []virtiotest.Buf{room, r.M.Room(1)})
			}
			ring.Kick()
		}
		r.Reset()
		r.M.Must(r.M.Mem.Zero(room.GPA, uint64(room.Len)))
		r.start(all)
		if _, s, _ := r.do(r.rings[round%2], typeIn, 0, nil, 512); s != statusOK {
			t.Fatalf("round %d: status %d after the reset", round, s)
		}
		if got := r.M.Bytes(room); !bytes.Equal(got, make([]byte, 4096)) {
			t.Fatalf("round %d: memory was written after the reset", round)
		}
	}
}

// TestPause stops the data path with requests waiting, and goes on with none
// lost or done twice.
func TestPause(t *testing.T) {
	r := newRig(t, Config{}, 1<<20, os.O_RDWR, all)
	for range 20 {
		var heads []uint16
		for range 8 {
			heads = append(heads, r.rings[0].Add(
				[]virtiotest.Buf{r.M.Put(header(typeIn, 8))}, []virtiotest.Buf{r.M.Room(512), r.M.Room(1)}))
		}
		r.rings[0].Kick()
		r.Transport.Pause()
		state, dev := r.Transport.Save(), r.dev.Save()
		r.M.Must(r.dev.Restore(dev))
		r.M.Must(r.Transport.Restore(state))
		r.Transport.Resume()
		seen := make(map[uint16]bool)
		for range heads {
			h, _ := r.rings[0].Wait()
			if seen[h] {
				t.Fatalf("chain %d used twice", h)
			}
			seen[h] = true
		}
		for _, h := range heads {
			if !seen[h] {
				t.Fatalf("chain %d not used", h)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, size int64, flags int) *os.File {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, size); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name string
		c    Config
		want error
	}{
		{"empty", Config{File: open("a", 0, os.O_RDWR)}, ErrSize},
		{"odd", Config{File: open("b", 1000, os.O_RDWR)}, ErrSize},
		{"not for writing", Config{File: open("c", 512, os.O_RDONLY)}, ErrFile},
		{"not for reading", Config{File: open("d", 512, os.O_WRONLY), ReadOnly: true}, ErrFile},
		{"character device", Config{File: null}, ErrFile},
		{"no file", Config{}, ErrConfig},
		{"long serial", Config{File: open("e", 512, os.O_RDWR), Serial: "123456789012345678901"}, ErrConfig},
		{"many queues", Config{File: open("f", 512, os.O_RDWR), Queues: 17}, ErrConfig},
	} {
		if _, err := New(tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: New = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// FuzzBlk lets a driver fill descriptors and a request's header at will, on a disk
// with and without limits. The
// header is at 0x8000, where the seeds' descriptors point.
func FuzzBlk(f *testing.F) {
	desc := func(gpa uint64, n uint32, flags, next uint16) []byte {
		b := binary.LittleEndian.AppendUint64(nil, gpa)
		b = binary.LittleEndian.AppendUint32(b, n)
		b = binary.LittleEndian.AppendUint16(b, flags)
		return binary.LittleEndian.AppendUint16(b, next)
	}
	const at = 0x8000
	read := bytes.Join([][]byte{desc(at, 16, 1, 1), desc(at+0x1000, 512, 3, 2), desc(at+0x2000, 1, 2, 0)}, nil)
	write := bytes.Join([][]byte{desc(at, 16, 1, 1), desc(at+0x1000, 512, 1, 2), desc(at+0x2000, 1, 2, 0)}, nil)
	zeroes := bytes.Join([][]byte{desc(at, 32, 1, 1), desc(at+0x2000, 1, 2, 0)}, nil)
	f.Add(read, header(typeIn, 3), uint16(1), uint16(0))
	f.Add(write, header(typeOut, 2047), uint16(1), uint16(10))
	f.Add(zeroes, append(header(typeWriteZeroes, 0), segment(7, 9, 1)...), uint16(1), uint16(0))
	f.Add(zeroes, append(header(typeDiscard, 0), segment(1<<63, 1<<31, 0)...), uint16(1), uint16(1))
	f.Add(read[16:], header(typeFlush, 0), uint16(16), uint16(60000))
	r := newRig(f, Config{}, 1<<20, os.O_RDWR, all)
	ring := r.rings[0]
	f.Fuzz(func(t *testing.T, desc, head []byte, idx, limit uint16) {
		r.M.Reuse(t)
		r.M.Must(r.dev.SetLimits(Limits{BytesPerSecond: 512 * uint64(limit), OperationsPerSecond: uint64(limit)}))
		r.M.Must(r.M.Mem.WriteAt(at, head[:min(len(head), 4096)]))
		ring.Fuzz(r.Negotiate(virtiotest.FuzzFeatures(all, idx)), desc, idx)
		r.AddStatus(virtio.DriverOK)
		ring.Kick()
		ring.Settle()
		r.Reset()
		if fi, err := os.Stat(r.name); err != nil || fi.Size() != 1<<20 {
			t.Fatalf("disk has %d bytes, %v; want 1 MiB", fi.Size(), err)
		}
	})
}
