package mem

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

const (
	all    = virtio.FeatureIndirectDesc | virtio.FeatureEventIdx | featUnpluggedInaccessible
	block  = 2 << 20
	blocks = 16
	base   = 5 << 30
)

func plug(t testing.TB, requested uint64) (*Device, *virtiotest.Driver) {
	t.Helper()
	return plugOfDomain(t, requested, -1)
}

func plugOfDomain(t testing.TB, requested uint64, domain int) (*Device, *virtiotest.Driver) {
	t.Helper()
	m := virtiotest.NewMachine(t)
	f, err := memory.Create("mem", virtiotest.MemorySize+blocks*block)
	m.Must(err)
	defer f.Close()
	m.Mem, err = memory.MapPluggable(f, virtiotest.MemorySize, memory.PluggableConfig{Size: blocks * block, Block: block, Populate: true})
	m.Must(err)
	t.Cleanup(func() {
		if err := m.Mem.Close(); err != nil {
			t.Error(err)
		}
	})
	d, err := New(m.Mem, requested, domain)
	m.Must(err)
	return d, m.Plug(d)
}

func encode(kind uint16, addr uint64, n uint16) []byte {
	b := binary.LittleEndian.AppendUint16(nil, kind)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, addr)
	b = binary.LittleEndian.AppendUint16(b, n)
	return append(b, 0, 0, 0, 0, 0, 0)
}

// ask sends a request, cut into pieces, and returns the response.
func ask(d *virtiotest.Driver, r *virtiotest.Ring, kind uint16, addr uint64, n uint16) (resp, state uint16) {
	d.M.T.Helper()
	room := d.M.Room(responseSize)
	if got := r.Do(d.M.Put(encode(kind, addr, n)).Cut(10), room.Cut(3)); got != responseSize {
		d.M.T.Errorf("response of %d bytes", got)
	}
	b := d.M.Bytes(room)
	return binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[respState:])
}

// TestDomain has a driver read of which node the memory is, where it is of one.
func TestDomain(t *testing.T) {
	for _, tt := range []struct {
		domain int
		offers bool
		node   uint64
	}{{-1, false, 0}, {0, true, 0}, {15, true, 15}} {
		dev, d := plugOfDomain(t, 0, tt.domain)
		if got := d.Negotiate(all|featACPIPXM).Has(featACPIPXM) && dev.Features().Has(featACPIPXM); got != tt.offers {
			t.Errorf("domain %d: the feature is there: %v", tt.domain, got)
		}
		if got := d.Device(cfgNodeID, 2); got != tt.node {
			t.Errorf("domain %d: node_id = %d", tt.domain, got)
		}
	}
}

func TestRequests(t *testing.T) {
	dev, d := plug(t, 4*block)
	r := d.Queue(0, 64, d.Negotiate(all))
	d.Start()
	at := func(i uint64) uint64 { return base + i*block }
	for i, tt := range []struct {
		kind        uint16
		addr        uint64
		n           uint16
		resp, state uint16
		plugged     uint64 // blocks, afterwards
	}{
		{reqState, base, blocks, respAck, stateUnplugged, 0},
		{reqPlug, at(0), 5, respNack, 0, 0},
		{reqPlug, at(0), 65535, respBusy, 0, 0},
		{reqPlug, at(0), 2, respAck, 0, 2},
		{reqPlug, at(1), 2, respError, 0, 2}, // one is there
		{reqPlug, at(blocks - 1), 2, respError, 0, 2},
		{reqPlug, at(blocks), 1, respError, 0, 2},
		{reqPlug, at(5) + 4096, 1, respError, 0, 2},
		{reqPlug, at(5), 0, respError, 0, 2},
		{reqPlug, 0, 1, respError, 0, 2},
		{reqPlug, ^uint64(0) &^ (block - 1), 1, respError, 0, 2},
		{reqPlug, at(blocks - 1), 1, respAck, 0, 3},
		{reqPlug, at(8), 2, respNack, 0, 3},
		{reqState, at(0), 2, respAck, statePlugged, 3},
		{reqState, at(0), 3, respAck, stateMixed, 3},
		{reqState, at(blocks), 1, respError, stateUnplugged, 3},
		{reqUnplug, at(1), 2, respError, 0, 3},
		{reqUnplug, at(1), 1, respAck, 0, 2},
		{reqUnplug, at(1), 1, respError, 0, 2},
		{reqUnplug, at(0), 2000, respBusy, 0, 2},
		{4, at(0), 1, respError, 0, 2},
		{reqUnplugAll, 0, 0, respAck, 0, 0},
		{reqUnplugAll, 0, 0, respAck, 0, 0},
		{reqPlug, at(3), 4, respAck, 0, 4},
	} {
		resp, state := ask(d, r, tt.kind, tt.addr, tt.n)
		if resp != tt.resp || resp == respAck && state != tt.state {
			t.Errorf("%d: response %d, state %d: want %+v", i, resp, state, tt)
		}
		if got := d.Device(cfgPlugged, 8); got != tt.plugged*block {
			t.Errorf("%d: plugged_size = %d MiB, want %d blocks", i, got>>20, tt.plugged)
		}
	}
	if c := dev.Counters(); c["plugged_bytes"] != 7*block || c["unplugged_bytes"] != 3*block || c["refused"] == 0 || c["failures"] != 2 {
		t.Errorf("counters = %v", c)
	}
}

func TestConfig(t *testing.T) {
	dev, d := plug(t, 0)
	for off, want := range map[uint64]uint64{
		cfgBlockSize: block, cfgNodeID: 0, cfgAddr: base, cfgRegionSize: blocks * block, cfgUsable: blocks * block,
		cfgPlugged: 0, cfgRequested: 0, configSize: 0,
	} {
		if got := d.Device(off, 8); got != want {
			t.Errorf("configuration at %d = %#x, want %#x", off, got, want)
		}
	}
	d.SetDevice(cfgRequested, 8, block) // is not the driver's
	d.Negotiate(all)
	d.Start()
	config := d.Vector(0)
	if err := dev.SetRequested(3 * block); err != nil {
		t.Fatal(err)
	}
	if !config.Take(virtiotest.Patience) || d.Device(cfgRequested, 8) != 3*block {
		t.Errorf("requested_size = %d, want 3 blocks and an interrupt", d.Device(cfgRequested, 8))
	}
	d.Transport.Pause()
	if err := dev.SetRequested(2 * block); err != nil {
		t.Fatal(err)
	}
	if config.Take(0) {
		t.Error("an interrupt in a pause")
	}
	d.Transport.Resume()
	if !config.Take(virtiotest.Patience) || dev.Requested() != 2*block {
		t.Error("no interrupt after a pause")
	}
	for _, n := range []uint64{1, block + 4096, (blocks + 1) * block, 1 << 63} {
		if err := dev.SetRequested(n); !errors.Is(err, ErrRequested) {
			t.Errorf("SetRequested(%d) = %v, want ErrRequested", n, err)
		}
	}
	if _, err := New(virtiotest.NewMemory(t, 4<<20), 0, -1); !errors.Is(err, ErrRequested) {
		t.Errorf("New for fixed memory = %v", err)
	}
}

// A driver that might read unplugged memory is none for this device.
func TestRequiredFeature(t *testing.T) {
	_, d := plug(t, 0)
	d.Reset()
	if d.Accept(virtio.FeatureVersion1 | virtio.FeatureEventIdx) {
		t.Error("FEATURES_OK without UNPLUGGED_INACCESSIBLE")
	}
	d.Reset()
	if !d.Accept(virtio.FeatureVersion1 | featUnpluggedInaccessible) {
		t.Error("no FEATURES_OK with UNPLUGGED_INACCESSIBLE")
	}
}

// What is plugged in stays so when the driver resets the device, and when it is paused.
func TestStays(t *testing.T) {
	dev, d := plug(t, 2*block)
	r := d.Queue(0, 64, d.Negotiate(all))
	d.Start()
	ask(d, r, reqPlug, base+block, 2)
	d.M.Must(d.M.Mem.Store32(base+2*block, 7))
	d.Transport.Pause()
	d.Transport.Resume()
	d.Reset()
	if v, err := d.M.Mem.Load32(base + 2*block); err != nil || v != 7 || dev.Requested() != 2*block {
		t.Errorf("after a reset: %d, %v, requested %d", v, err, dev.Requested())
	}
	other, _ := plug(t, 0)
	if err := other.Restore(dev.Save()); err != nil || other.Requested() != 2*block || other.mem.Pluggable().Plugged != 2*block {
		t.Errorf("Restore = %v, requested %d, %+v", err, other.Requested(), other.mem.Pluggable())
	}
	if err := other.Restore(State{Requested: 1}); !errors.Is(err, ErrRequested) {
		t.Errorf("Restore of a bad state = %v", err)
	}
	if err := other.Restore(State{Plugged: []uint64{7}}); err == nil {
		t.Error("Restore of a bad block succeeded")
	}
}

// A device cannot be made to read or write what is not plugged in.
func TestMalformed(t *testing.T) {
	_, d := plug(t, block)
	for name, bufs := range map[string][2][]virtiotest.Buf{
		"short":             {{d.M.Room(requestSize - 1)}, {d.M.Room(responseSize)}},
		"no room":           {{d.M.Room(requestSize)}, {d.M.Room(responseSize - 1)}},
		"unplugged request": {{{GPA: base, Len: requestSize}}, {d.M.Room(responseSize)}},
		"unplugged room":    {{d.M.Put(encode(reqState, base, 1))}, {{GPA: base, Len: responseSize}}},
		// The room for the response goes away with the request.
		"own room": {{d.M.Put(encode(reqUnplugAll, 0, 0))}, {{GPA: base, Len: responseSize}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.Queue(0, 16, d.Negotiate(all))
			d.Start()
			if name == "own room" {
				ask(d, r, reqPlug, base, 1)
			}
			r.Add(bufs[0], bufs[1])
			r.Kick()
			d.WaitBroken()
		})
	}
	r := d.Queue(0, 16, d.Negotiate(all))
	d.Start()
	if resp, _ := ask(d, r, reqState, base, 1); resp != respAck {
		t.Errorf("after a reset: %d", resp)
	}
}

// FuzzRequests lets a driver fill the descriptors and requests at will. It never has more
// than it was asked to have.
func FuzzRequests(f *testing.F) {
	desc := []byte{0, 0, 0x20, 0, 0, 0, 0, 0, 24, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0}
	for kind := range uint16(5) {
		f.Add(desc, uint16(1), encode(kind, base+block, 2), uint8(3))
	}
	dev, d := plug(f, 0)
	r := d.Queue(0, 16, d.Negotiate(all))
	f.Fuzz(func(t *testing.T, desc []byte, idx uint16, data []byte, requested uint8) {
		d.M.Reuse(t)
		d.M.Must(d.M.Mem.WriteAt(2<<20, data[:min(len(data), 1<<20)]))
		before := dev.mem.Pluggable().Plugged
		d.M.Must(dev.SetRequested(uint64(requested%blocks) * block))
		r.Fuzz(d.Negotiate(all), desc, idx)
		d.AddStatus(virtio.DriverOK)
		r.Kick()
		r.Settle()
		d.Reset()
		if p := dev.mem.Pluggable(); p.Plugged > max(before, dev.Requested()) {
			t.Errorf("%d bytes are plugged in, %d asked for, %d before", p.Plugged, dev.Requested(), before)
		}
	})
}
