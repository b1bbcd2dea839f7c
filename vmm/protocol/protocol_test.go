package protocol

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

var update = flag.Bool("update", false, "write the golden files anew")

// largest is a Request with as much in it as core ever sends.
func largest() Request {
	initramfs, vhost, poll := File(1), File(20), uint64(HaltPollLimit)
	s := &Spec{Name: "vm", UUID: "00000000-0000-0000-0000-000000000001", VCPUs: 128, MaxVCPUs: 128, MemoryBytes: 1 << 40,
		CPU:     &CPU{Model: "x86-64-v4", Sockets: 8, Cores: 8, Threads: 2, HyperV: true, HaltPollNs: &poll},
		Backing: &Backing{Pages: TransparentPages, Populate: true},
		Board:   &Board{Watchdog: PowerOffAction, OnPanic: PowerOffAction, SerialNumber: string(make([]byte, MaxSerialNumber)), Bare: true},
		Memory:  2, KVM: 3, Log: 4, Entropy: 5, Jail: Jail{UID: 100000, GID: 100000},
		Boot:  Boot{Kernel: 0, Initramfs: &initramfs, Cmdline: string(make([]byte, 2047))},
		Vsock: &Vsock{Vhost: 24, CID: MaxCID}}
	for i := range 16 {
		s.Disks = append(s.Disks, Disk{File: File(6 + i), Serial: "12345678901234567890", ReadOnly: true,
			Limits: &DiskLimits{MaxBytesPerSecond, MaxBytesPerSecond, MaxOperationsPerSecond, MaxOperationsPerSecond}})
	}
	for range 8 {
		s.NICs = append(s.NICs, NIC{Pairs: []Pair{{22, &vhost}, {23, &vhost}}, MAC: "02:00:00:00:00:01", MTU: 1500, LinkDown: true})
	}
	for i := range MaxPorts {
		s.Ports = append(s.Ports, Port{Name: fmt.Sprintf("%0*d", MaxPortName, i)})
	}
	return Request{ID: 1<<64 - 1, Method: Configure, Spec: s}
}

// TestRequestTravels sends the largest request over a real socket.
func TestRequestTravels(t *testing.T) {
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	a, err := seqpacket.FromFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := seqpacket.FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	want := largest()
	if err := a.Send(want); err != nil {
		t.Fatalf("send: %v", err)
	}
	var got Request
	if _, err := b.Recv(&got); err != nil {
		t.Fatalf("receive: %v", err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("request (-sent +received):\n%s", d)
	}
}

// TestCountersFit holds that the counters of a guest as large as core allows
// fit into a message, all of them with 13 digits.
func TestCountersFit(t *testing.T) {
	const value = 1e13 - 1
	c := Counters{Devices: map[string]uint64{}, VCPUs: map[string][]uint64{}}
	for i := range 24 {
		for j := range 16 {
			c.Devices[fmt.Sprintf("disk%d.counter_%d", i, j)] = value
		}
	}
	for i := range 24 {
		c.VCPUs[fmt.Sprintf("some_name_of_exits_%d", i)] = slices.Repeat([]uint64{value}, 128)
	}
	b, err := json.Marshal(Response{ID: 1 << 63, Counters: &c})
	if err != nil || len(b) > seqpacket.MaxMessage {
		t.Errorf("%d bytes, %v; want at most %d", len(b), err, seqpacket.MaxMessage)
	}
}

// TestHistogramsFit is the same for histograms, with as many digits as there can be.
func TestHistogramsFit(t *testing.T) {
	h := Histograms{}
	for i := range 16 {
		for _, kind := range []string{"read", "write", "flush"} {
			h[fmt.Sprintf("disk%d.%s", i, kind)] = slices.Repeat([]uint64{1<<64 - 1}, HistogramBuckets)
		}
	}
	b, err := json.Marshal(Response{ID: 1 << 63, Histograms: h})
	if err != nil || len(b) > seqpacket.MaxMessage {
		t.Errorf("%d bytes, %v; want at most %d", len(b), err, seqpacket.MaxMessage)
	}
}

// TestGolden holds the messages' form: core and a VMM of an older build have
// to understand each other while a host is updated under its guests.
func TestGolden(t *testing.T) {
	initramfs, poll := File(1), uint64(0)
	for name, v := range map[string]any{
		"configure": Request{ID: 1, Method: Configure, Spec: &Spec{Name: "vm", UUID: "u", VCPUs: 1, MemoryBytes: 1 << 27, Memory: 2,
			KVM: 3, Boot: Boot{Initramfs: &initramfs, Cmdline: "quiet"}, Log: 4, Entropy: 5, Disks: []Disk{{File: 6, Serial: "s"}},
			NICs: []NIC{{Pairs: []Pair{{Tap: 7}}, MAC: "02:00:00:00:00:01"}}, Jail: Jail{UID: 100000, GID: 100000}}},
		"configure-pluggable": Request{ID: 1, Method: Configure, Spec: &Spec{MemoryBytes: 128 << 20,
			Pluggable: &Pluggable{MaxBytes: 1 << 30, Bytes: 256 << 20}}},
		"configure-cpu": Request{ID: 1, Method: Configure, Spec: &Spec{VCPUs: 8,
			CPU: &CPU{Model: "x86-64-v3", Sockets: 2, Cores: 2, Threads: 2, HyperV: true, HaltPollNs: &poll}}},
		"configure-board": Request{ID: 1, Method: Configure, Spec: &Spec{VCPUs: 1, WatchdogExpired: true,
			Board: &Board{Watchdog: ResetAction, OnPanic: PowerOffAction, SerialNumber: "7"}}},
		"panicked":        Response{ID: 1, Status: &Status{State: Running, Panicked: time.Unix(1e9, 0).UTC()}},
		"status":          Response{ID: 1, Status: &Status{State: Stopped, Reason: Failed, Message: "m"}},
		"error":           Response{ID: 1, Error: &Error{Code: InvalidArgument, Field: "boot.kernel", Message: "m"}},
		"result":          Result{Reason: PoweredOff},
		"configure-vsock": Request{ID: 1, Method: Configure, Spec: &Spec{Vsock: &Vsock{Vhost: 8, CID: 4711}}},
		"balloon": Response{ID: 5, Balloon: &Balloon{TargetBytes: 64 << 20, ActualBytes: 32 << 20,
			Statistics: map[string]uint64{"free_bytes": 7}, StatisticsTime: time.Unix(1e9, 0).UTC()}},
		"set-balloon":     Request{ID: 6, Method: SetBalloon, BalloonBytes: 64 << 20},
		"set-memory":      Request{ID: 8, Method: SetMemory, PluggedBytes: 256 << 20},
		"memory":          Response{ID: 9, Memory: &Memory{RequestedBytes: 256 << 20, PluggedBytes: 128 << 20}},
		"configure-ports": Request{ID: 1, Method: Configure, Spec: &Spec{Ports: []Port{{Name: "org.qemu.guest_agent.0"}}}},
		"connect-port":    Request{ID: 9, Method: ConnectPort, PortName: "org.qemu.guest_agent.0"},
		"nmi":             Request{ID: 2, Method: NMI},
		"reset":           Request{ID: 3, Method: ResetMethod},
		"resize-disk":     Request{ID: 6, Method: ResizeDisk, Disk: 1, Size: 1 << 30},
		"set-disk-limits": Request{ID: 5, Method: SetDiskLimits, Disk: 1,
			Limits: &DiskLimits{BytesPerSecond: 1 << 20, BurstBytes: 1 << 16, OperationsPerSecond: 100, BurstOperations: 10}},
		"set-link":   Request{ID: 8, Method: SetLink, NIC: 1, LinkDown: true},
		"set-vcpus":  Request{ID: 8, Method: SetVCPUs, VCPUs: 3},
		"vcpus":      Response{ID: 8, Status: &Status{State: Running, VCPUs: &VCPUs{Present: 4, Target: 3, Refused: 1}}},
		"histograms": Response{ID: 7, Histograms: Histograms{"disk0.read": {0, 0, 5, 1}}},
		"counters": Response{ID: 4, Counters: &Counters{Devices: map[string]uint64{"disk0.reads": 7},
			VCPUs: map[string][]uint64{"exits": {1, 2}}}},
	} {
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
			t.Errorf("%s (-%s +now):\n%s", name, file, d)
		}
	}
}

func TestCheckDiskLimits(t *testing.T) {
	for _, tt := range []struct {
		l    *DiskLimits
		want string
	}{
		{nil, ""},
		{&DiskLimits{}, ""},
		{&DiskLimits{MinBytesPerSecond, 1, MinOperationsPerSecond, 1}, ""},
		{&DiskLimits{MaxBytesPerSecond, MaxBytesPerSecond, MaxOperationsPerSecond, MaxOperationsPerSecond}, ""},
		{&DiskLimits{BytesPerSecond: MinBytesPerSecond - 1}, "bytesPerSecond"},
		{&DiskLimits{BytesPerSecond: MaxBytesPerSecond + 1}, "bytesPerSecond"},
		{&DiskLimits{BytesPerSecond: MinBytesPerSecond, BurstBytes: MaxBytesPerSecond + 1}, "burstBytes"},
		{&DiskLimits{BurstBytes: 1}, "burstBytes"},
		{&DiskLimits{OperationsPerSecond: 1}, "operationsPerSecond"},
		{&DiskLimits{OperationsPerSecond: 1 << 63}, "operationsPerSecond"},
		{&DiskLimits{BytesPerSecond: 1 << 20, BurstOperations: 1}, "burstOperations"},
	} {
		if field, wrong := tt.l.Check(); field != tt.want || (wrong == "") != (tt.want == "") {
			t.Errorf("Check(%+v) = %q, %q; want %q", tt.l, field, wrong, tt.want)
		}
	}
}

// FuzzRequest reads requests: what comes out can be sent on and means the same.
func FuzzRequest(f *testing.F) {
	b, err := json.Marshal(largest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"id":1,"method":"query"}`))
	f.Add([]byte(`{"id":1,"method":"set-disk-limits","disk":3,"limits":{"bytesPerSecond":18446744073709551615}}`))
	f.Add([]byte(`{"id":-1,"spec":{"disks":[{}],"nics":[{"vhost":1}]}}`))
	f.Fuzz(roundTrip[Request])
}

// FuzzResponse reads responses, which core takes from a process that its guest
// may have taken over.
func FuzzResponse(f *testing.F) {
	for _, v := range []Response{
		{ID: 1, Error: &Error{Code: InvalidArgument, Field: "boot.kernel", Message: "m"}},
		{ID: 3, Histograms: Histograms{"disk0.flush": {1, 2}}},
		{ID: 2, Status: &Status{State: Stopped, PID: 1, Reason: PoweredOff}, Counters: &Counters{Devices: map[string]uint64{"disk0.reads": 7}, VCPUs: map[string][]uint64{"exits": {1, 2}}}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"id":5,"balloon":{"targetBytes":1,"statistics":{"free_bytes":7},"statisticsTime":"2001-09-09T01:46:40Z"}}`))
	f.Add([]byte(`{"id":18446744073709551616,"counters":{"devices":{"x":-1},"vcpus":null}}`))
	f.Fuzz(roundTrip[Response])
}

// FuzzResult reads what a VMM leaves in the file for its result.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"reason":"failed","message":"KVM gave up"}`))
	f.Add([]byte(``))
	f.Fuzz(roundTrip[Result])
}

// roundTrip reads b as a message, sends what it read, and reads that.
func roundTrip[M any](t *testing.T, b []byte) {
	var first, second M
	if json.Unmarshal(b, &first) != nil {
		return
	}
	again, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("a message that was read cannot be sent: %v", err)
	}
	if err := json.Unmarshal(again, &second); err != nil {
		t.Fatalf("a message that was sent cannot be read: %v", err)
	}
	third, err := json.Marshal(second)
	if err != nil || string(third) != string(again) {
		t.Errorf("sent %s, then %s (%v)", again, third, err)
	}
}
