package hostcall

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

func TestValidID(t *testing.T) {
	tests := []struct {
		id   string
		want bool
	}{
		{"0123456789abcdef0123456789abcdef", true},
		{"", false},
		{"0123456789abcdef0123456789abcde", false},
		{"0123456789abcdef0123456789abcdef0", false},
		{"0123456789ABCDEF0123456789ABCDEF", false},
		{"0123456789abcdef0123456789abcdeg", false},
		{"../../../../../../../etc/passwd/", false},
		{"0123456789abcdef0123456789abcde\x00", false},
		{strings.Repeat("é", 16), false},
	}
	for _, tt := range tests {
		if got := ValidID(tt.id); got != tt.want {
			t.Errorf("ValidID(%q) = %v, want %v", tt.id, got, tt.want)
		}
	}
}

// TestListsFit holds that the longest lists core answers fit into a message:
// 128 guests and 512 images, as mgmt/core/folder and mgmt/core/image bound them.
func TestListsFit(t *testing.T) {
	var m Message
	for i := range 128 {
		m.Guests = append(m.Guests, GuestStatus{ID: fmt.Sprintf("%032x", i), State: Stopped, Reason: "triple-fault",
			Message: strings.Repeat("x", 160), Started: time.Now().UTC()})
	}
	fits(t, "ended guests", m)
	m = Message{}
	for i := range 128 {
		m.Guests = append(m.Guests, GuestStatus{ID: fmt.Sprintf("%032x", i), State: Running, PID: 1 << 22, Started: time.Now().UTC(),
			NICs: []int{0, 1, 2, 3, 4, 5, 6, 7}, TapsGone: []int{0, 1, 2, 3, 4, 5, 6, 7}, DisksFull: 1<<32 - 1, DisksFailed: 1<<32 - 1, Addresses: []string{"100.100.100.101", "100.100.100.102", "100.100.100.103", "100.100.100.104",
				"100.100.100.105", "100.100.100.106", "100.100.100.107", "100.100.100.108"}})
	}
	fits(t, "running guests", m)
	for i := range m.Guests {
		for n := range 3 { // as many as the virtual functions of a large host
			m.Guests[i].Devices = append(m.Guests[i].Devices, HeldDevice{Number: n, Address: "0000:3b:1f.7", Fault: strings.Repeat("x", 200), FaultTime: time.Now()})
		}
	}
	FitDevices(m.Guests)
	fits(t, "running guests with devices", m)
	m = Message{}
	for i := range 512 {
		m.Images = append(m.Images, ImageStatus{ID: fmt.Sprintf("%032x", i), Size: 16 << 40, Sealed: true})
	}
	fits(t, "images", m)
}

func fits(t *testing.T, what string, m Message) {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil || len(b) > seqpacket.MaxMessage {
		t.Errorf("%s: %d bytes, %v; want at most %d", what, len(b), err, seqpacket.MaxMessage)
	}
}

// FuzzMessage reads what core sends: what comes out can be sent on and means
// the same.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"seq":1,"error":{"code":"not-found","field":"id","message":"m"}}`))
	f.Add([]byte(`{"event":{"guest":{"id":"x","state":"running","started":"2026-01-01T00:00:00Z","addresses":["",""]}}}`))
	f.Add([]byte(`{"seq":2,"counters":{"devices":{"disk0.reads":7},"vcpus":{"exits":[1,2]},"read":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"seq":3,"balloon":{"targetBytes":4096,"statistics":{"free_bytes":7},"statisticsTime":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"seq":4,"vcpus":{"present":3,"target":2,"refused":1},"event":{"guest":{"vcpus":3}}}`))
	f.Add([]byte(`{"seq":18446744073709551615,"host":{"uptime":-1,"problems":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) { again[Message](t, b) })
}

// FuzzCall does the same for what control sends.
func FuzzCall(f *testing.F) {
	f.Add([]byte(`{"seq":1,"method":"image-create","id":"x","size":-1}`))
	f.Add([]byte(`{"seq":1,"method":"guest-start","guest":{"vcpus":1,"memoryBytes":1,"nics":[{"mac":"x"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) { again[Call](t, b) })
}

func again[T any](t *testing.T, b []byte) {
	t.Helper()
	var first, second T
	if json.Unmarshal(b, &first) != nil {
		return
	}
	one, err := json.Marshal(first)
	if err != nil {
		return // a time out of JSON's range
	}
	if err := json.Unmarshal(one, &second); err != nil {
		t.Fatalf("sent %s, which cannot be read: %v", one, err)
	}
	two, err := json.Marshal(second)
	if err != nil || string(one) != string(two) {
		t.Errorf("sent %s, then %s (%v)", one, two, err)
	}
}
