package pci_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
)

// A space notes what it is asked.
type space struct{ log []string }

func (s *space) ReadConfig(off int, b []byte) {
	s.log = append(s.log, fmt.Sprintf("r %#x %d", off, len(b)))
	for i := range b {
		b[i] = byte(0x80 + off + i)
	}
}

func (s *space) WriteConfig(off int, b []byte) {
	s.log = append(s.log, fmt.Sprintf("w %#x %x", off, b))
}

func TestPassedConfig(t *testing.T) {
	s, refused := &space{}, 0
	c := pci.NewPassedConfig(s, func() { refused++ })
	c.Fixed(0, 0x34, 0x12, 0x78, 0x56)
	c.Masked(4, 0x06)
	c.Pass(0x40, 3, false)
	c.Pass(0x44, 6, true)
	bus := pci.NewBus(pci.Window{}, pci.Window{})
	must(t, bus.Add(1, &function{cfg: c}))
	at := uint64(8 * pci.ConfigSize)
	for _, tt := range []struct {
		off  uint64
		want string
		log  []string
	}{
		{0, "3412785600000000", nil},
		{0x40, "c0c1c200c4c5c6c7", []string{"r 0x40 2", "r 0x42 1", "r 0x44 4"}},
		{0x47, "c7c8c90000000000", []string{"r 0x47 1", "r 0x48 2"}},
	} {
		s.log = nil
		b := make([]byte, 8)
		bus.Read(at+tt.off, b)
		if got := fmt.Sprintf("%x", b); got != tt.want || !slices.Equal(s.log, tt.log) {
			t.Errorf("read at %#x = %s by %q, want %s by %q", tt.off, got, s.log, tt.want, tt.log)
		}
	}
	for _, tt := range []struct {
		off     uint64
		b       []byte
		log     []string
		refused int
	}{
		{0, []byte{1, 2, 3, 4}, nil, 0},
		{4, []byte{0xff}, nil, 0},
		{0x40, []byte{1, 2, 3, 4, 5, 6, 7, 8}, []string{"w 0x44 05060708"}, 1}, // 0x43 is nobody's
		{0x44, []byte{1}, []string{"w 0x44 01"}, 0},
		{0x46, []byte{1, 2, 3, 4}, []string{"w 0x46 0102", "w 0x48 0304"}, 0},
		{0xffc, []byte{1, 2, 3, 4}, nil, 1},
	} {
		s.log, refused = nil, 0
		bus.Write(at+tt.off, tt.b)
		if !slices.Equal(s.log, tt.log) || refused != tt.refused {
			t.Errorf("write at %#x of %x by %q, %d refused; want %q, %d", tt.off, tt.b, s.log, refused, tt.log, tt.refused)
		}
	}
	var b [4]byte
	c.Bytes(0, b[:])
	if got := binary.LittleEndian.Uint32(b[:]); got != 0x56781234 {
		t.Errorf("fixed bytes are %#x after a write", got)
	}
	if c.Bytes(4, b[:1]); b[0] != 6 {
		t.Errorf("masked byte is %#x, want 6", b[0])
	}
}

// TestROM: an expansion ROM answers when both its own bit and memory decoding are on.
func TestROM(t *testing.T) {
	f := newFunction(t, map[int]pci.BAR{pci.ROM: {Size: 1 << 16}})
	b := newBus(t, f)
	at := uint64(8 * pci.ConfigSize)
	write := func(off uint64, v uint32) { b.Write(at+off, binary.LittleEndian.AppendUint32(nil, v)) }
	write(0x30, 0xffffffff)
	var v [4]byte
	b.Read(at+0x30, v[:])
	if got := binary.LittleEndian.Uint32(v[:]); got != 0xffff0001 {
		t.Errorf("size of the ROM reads %#x", got)
	}
	write(0x30, lowBase)
	write(4, 2)
	if len(f.events) != 0 {
		t.Errorf("a ROM that is off was mapped: %q", f.events)
	}
	write(0x30, lowBase|1)
	write(4, 0)
	if want := []string{fmt.Sprintf("6 %#x true", lowBase), fmt.Sprintf("6 %#x false", lowBase)}; !slices.Equal(f.events, want) {
		t.Errorf("events %q, want %q", f.events, want)
	}
}

// A source notes what an MSIX tells it.
type source struct {
	log []string
	err error
}

func (s *source) EnableMSIX(on bool) { s.log = append(s.log, fmt.Sprintf("enable %v", on)) }

func (s *source) OpenMSIX(i int, fd *os.File) error {
	s.log = append(s.log, fmt.Sprintf("open %d", i))
	return s.err
}

func (s *source) take() []string {
	l := s.log
	s.log = nil
	return l
}

func TestSourceMSIX(t *testing.T) {
	s, r := &source{}, &pcitest.Router{}
	c := pci.NewPassedConfig(&space{}, func() {})
	m, err := pci.NewSourceMSIX(c, r, 0x50, 2048, s, func(err error) { t.Log(err) })
	must(t, err)
	defer m.Close()
	bus := pci.NewBus(pci.Window{}, pci.Window{})
	must(t, bus.Add(1, &function{cfg: c}))
	control := func(v byte) { bus.Write(8*pci.ConfigSize+0x53, []byte{v}) }
	entry := func(i int, mask byte) {
		m.WriteTable(uint64(i*pci.MSIXEntrySize), []byte{0, 0, 0xe0, 0xfe, 0, 0, 0, 0, byte(i), 0, 0, 0, mask, 0, 0, 0})
	}
	want := func(what string, log ...string) {
		t.Helper()
		if got := s.take(); !slices.Equal(got, log) {
			t.Errorf("%s: %q, want %q", what, got, log)
		}
	}
	entry(2000, 0)
	want("not enabled")
	control(0xc0)
	want("enabled and masked", "enable true")
	control(0x80)
	want("unmasked", "open 2000")
	if len(r.Vectors) != 1 || m.Vectors() != 1 {
		t.Errorf("%d vectors, want 1", len(r.Vectors))
	}
	entry(2000, 1)
	entry(3, 0)
	want("another", "open 3")
	if _, err := m.EventFD(2000).Write(binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		t.Fatal(err)
	}
	var pba [1]byte
	if m.ReadPBA(2000/8, pba[:]); pba[0] != 1 {
		t.Errorf("pending bits %#x, want 1", pba[0])
	}
	entry(2000, 0)
	want("again", "open 2000")
	if !r.Vectors[0].Take(time.Second) {
		t.Error("what came while it was masked is lost")
	}
	control(0)
	want("disabled", "enable false")
	s.err = errors.New("no")
	control(0x80)
	want("refused", "enable true", "open 3", "open 2000")
	for _, v := range r.Vectors {
		if _, _, masked := v.Message(); !masked {
			t.Error("a vector that the device does not signal is open")
		}
	}
}
