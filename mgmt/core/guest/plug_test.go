package guest

import (
	"errors"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestCheckPluggable(t *testing.T) {
	pool := &protocol.Backing{Pages: protocol.Pages2MiB}
	for _, tt := range []struct {
		p       *protocol.Pluggable
		backing *protocol.Backing
		field   string
	}{
		{nil, pool, ""},
		{&protocol.Pluggable{MaxBytes: 128 << 20, Bytes: 2 << 20}, nil, ""},
		{&protocol.Pluggable{MaxBytes: 128 << 20}, pool, "guest.pluggable.maxBytes"},
		{&protocol.Pluggable{}, nil, "guest.pluggable.maxBytes"},
		{&protocol.Pluggable{MaxBytes: 1<<64 - 128<<20}, nil, "guest.pluggable.maxBytes"},
		{&protocol.Pluggable{MaxBytes: 64 << 30, Bytes: 4 << 20}, nil, ""},
		{&protocol.Pluggable{MaxBytes: 64 << 30, Bytes: 2 << 20}, nil, "guest.pluggable.bytes"},
	} {
		err := checkPluggable(&hostcall.Guest{MemoryBytes: 128 << 20, Pluggable: tt.p, Backing: tt.backing})
		var got *hostcall.Error
		if errors.As(err, &got) != (tt.field != "") || got != nil && got.Field != tt.field {
			t.Errorf("%+v: %v, want the field %q", tt.p, err, tt.field)
		}
	}
}

// What is promised to a guest follows what its VMM says down, never up.
func TestSettled(t *testing.T) {
	r := &record{MaxPlugged: 512, Requested: 128, Plugged: 256}
	for plugged, want := range map[uint64]uint64{0: 128, 128: 128, 200: 200, 256: 256, 512: 256, 1 << 63: 256} {
		if got := r.settled(plugged); got != want {
			t.Errorf("settled(%d) = %d, want %d", plugged, got, want)
		}
	}
}

// Memory that a guest starts with besides counts, and so does the room for what may come.
func TestPromisedPluggable(t *testing.T) {
	fixed, grows := &record{MemoryBytes: 1 << 30, VCPUs: 1}, &record{MemoryBytes: 1 << 30, VCPUs: 1}
	grows.plug(&hostcall.Guest{Pluggable: &protocol.Pluggable{MaxBytes: 1 << 30, Bytes: 256 << 20}})
	const more = 256<<20 + 2<<20 + 2<<20
	if got := grows.promised() - fixed.promised(); got != more {
		t.Errorf("256 MiB plugged in of 1 GiB come to %d bytes, want %d", got, more)
	}
	m := &Manager{}
	for free, ok := range map[int64]bool{grows.promised() + memoryReserve + 4<<20: true, grows.promised() + memoryReserve - 4<<20: false} {
		m.c.Memory = func() (int64, error) { return free, nil }
		if err := m.admit(grows); (err == nil) != ok {
			t.Errorf("admit with %d bytes: %v", free, err)
		}
	}
}
