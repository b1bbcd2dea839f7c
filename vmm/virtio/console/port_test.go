package console

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// A portRig is a console with the named ports a and b, and a driver of all its queues.
type portRig struct {
	*virtiotest.Driver
	dev    *Device
	screen *screen
	queues []*virtiotest.Ring // in their order
}

// Queues of a portRig.
const (
	tellQueue = 2
	hearQueue = 3
	aReceive  = 4
	aTransmit = 5
)

func newPortRig(t testing.TB) *portRig {
	t.Helper()
	r := &portRig{screen: new(screen)}
	var err error
	if r.dev, err = New(Config{Output: r.screen, Input: make(chan []byte), Ports: []string{"org.a.0", "b"}}); err != nil {
		t.Fatal(err)
	}
	r.Driver = virtiotest.NewMachine(t).Plug(r.dev)
	r.start(all)
	return r
}

func (r *portRig) start(want virtio.Features) {
	f := r.Negotiate(want)
	r.queues = nil
	for i := range r.dev.Queues() {
		r.queues = append(r.queues, r.Queue(i, 8, f))
	}
	r.Start()
}

// say sends a control message.
func (r *portRig) say(port uint32, event, value uint16) {
	r.M.T.Helper()
	r.queues[hearQueue].Do([]virtiotest.Buf{r.M.Put(control{port: port, event: event, value: value}.bytes())}, nil)
}

// hears waits for control messages, and compares them.
func (r *portRig) hears(want ...control) {
	r.M.T.Helper()
	for _, w := range want {
		buf := r.M.Room(100)
		n := r.queues[tellQueue].Do(nil, []virtiotest.Buf{buf})
		if got := r.M.Bytes(buf)[:n]; !bytes.Equal(got, w.bytes()) {
			r.M.T.Fatalf("control message %q, want %q (%+v)", got, w.bytes(), w)
		}
	}
}

// open has a driver find port a and open it.
func (r *portRig) open() {
	r.M.T.Helper()
	r.say(1, eventPortReady, 1)
	r.hears(control{port: 1, event: eventPortName, value: 1, name: "org.a.0"})
	r.say(1, eventPortOpen, 1)
}

// connect connects to port a, which the driver is told.
func (r *portRig) connect() *os.File {
	r.M.T.Helper()
	f, err := r.dev.Connect("org.a.0")
	r.M.Must(err)
	r.M.T.Cleanup(func() { f.Close() })
	r.hears(control{port: 1, event: eventPortOpen, value: 1})
	return f
}

// receives waits until the guest has received text at port a.
func (r *portRig) receives(text string) {
	r.M.T.Helper()
	got := ""
	for len(got) < len(text) {
		buf := r.M.Room(5)
		n := r.queues[aReceive].Do(nil, []virtiotest.Buf{buf})
		got += string(r.M.Bytes(buf)[:n])
	}
	if got != text {
		r.M.T.Errorf("the guest receives %q, want %q", got, text)
	}
}

func read(t testing.TB, f *os.File, n int) []byte {
	t.Helper()
	_ = f.SetReadDeadline(time.Now().Add(virtiotest.Patience))
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPortConfig(t *testing.T) {
	for _, ports := range [][]string{{""}, {"a", "a"}, {strings.Repeat("a", 257)}, {"1", "2", "3", "4", "5", "6", "7", "8"}} {
		if d, err := New(Config{Output: new(screen), Ports: ports}); !errors.Is(err, ErrConfig) {
			t.Errorf("ports %.20q: %v, %v", ports, d, err)
		}
	}
	plain := newRig(t, all)
	if plain.Offered()&featMultiport != 0 || plain.Common(virtiotest.NumQueues, 2) != 2 || plain.Device(cfgMaxPorts, 4) != 0 {
		t.Error("a console without named ports shows some")
	}
	r := newPortRig(t)
	if r.Offered()&featMultiport == 0 || r.Common(virtiotest.NumQueues, 2) != 8 || r.Device(cfgMaxPorts, 4) != 3 || r.Device(40, 4) != 0 {
		t.Errorf("max_nr_ports = %d", r.Device(cfgMaxPorts, 4))
	}
}

// TestPortsShown goes the way of a driver that starts, and of one that has not taken a
// port.
func TestPortsShown(t *testing.T) {
	r := newPortRig(t)
	if _, err := r.dev.Connect("org.a.0"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Connect before the driver: %v", err)
	}
	r.say(0xffffffff, eventDeviceReady, 1)
	r.hears(control{port: 0, event: eventDeviceAdd}, control{port: 1, event: eventDeviceAdd}, control{port: 2, event: eventDeviceAdd})
	r.say(0, eventPortReady, 1)
	r.hears(control{port: 0, event: eventConsolePort, value: 1}, control{port: 0, event: eventPortOpen, value: 1})
	r.say(2, eventPortReady, 0)
	r.open()
	f := r.connect()
	if _, err := r.dev.Connect("org.a.0"); !errors.Is(err, ErrBusy) {
		t.Errorf("second Connect: %v", err)
	}
	if _, err := r.dev.Connect("b"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Connect to a port that is not open: %v", err)
	}
	if _, err := r.dev.Connect("c"); !errors.Is(err, ErrNoPort) {
		t.Errorf("Connect to no port: %v", err)
	}
	_, err := f.WriteString("to the guest")
	r.M.Must(err)
	r.receives("to the guest")
	r.queues[aTransmit].Do([]virtiotest.Buf{r.M.Put([]byte("to the host"))}, nil)
	if got := read(t, f, 11); string(got) != "to the host" {
		t.Errorf("the client reads %q", got)
	}
	r.queues[transmitQueue].Do([]virtiotest.Buf{r.M.Put([]byte("printed"))}, nil)
	if got := r.screen.String(); got != "printed" {
		t.Errorf("printed %q", got)
	}
	want := map[string]uint64{"received_bytes": 12, "sent_bytes": 11, "discarded_bytes": 0, "connections": 1}
	for name, n := range want {
		if got := r.dev.Counters()["port1."+name]; got != n {
			t.Errorf("%s = %d, want %d", name, got, n)
		}
	}
}

// TestPortClientLeaves closes and connects anew faster than the driver takes messages: it
// is told of both. What the guest writes in between is nobody's.
func TestPortClientLeaves(t *testing.T) {
	r := newPortRig(t)
	r.open()
	first := r.connect()
	_, err := first.WriteString("last words")
	r.M.Must(err)
	first.Close()
	r.receives("last words") // though nobody waits for an answer
	second, err := r.dev.Connect("org.a.0")
	r.M.Must(err)
	defer second.Close()
	r.hears(control{port: 1, event: eventPortOpen, value: 0}, control{port: 1, event: eventPortOpen, value: 1})
	second.Close()
	r.hears(control{port: 1, event: eventPortOpen, value: 0})
	r.queues[aTransmit].Do([]virtiotest.Buf{r.M.Put([]byte("lost"))}, nil)
	if got := r.dev.Counters()["port1.discarded_bytes"]; got != 4 {
		t.Errorf("%d bytes were discarded, want 4", got)
	}
}

// TestPortDeafGuest has a client leave whose input the guest does not take: it gets none of
// that later.
func TestPortDeafGuest(t *testing.T) {
	r := newPortRig(t)
	r.open()
	first := r.connect()
	_, err := first.WriteString("not taken")
	r.M.Must(err)
	first.Close()
	r.hears(control{port: 1, event: eventPortOpen, value: 0})
	second := r.connect()
	_, err = second.WriteString("taken")
	r.M.Must(err)
	r.receives("taken")
}

// TestPortSlowClient has a guest write more than a socket holds: it waits, also through
// pauses, and nothing is lost. Nothing else waits with it.
func TestPortSlowClient(t *testing.T) {
	r := newPortRig(t)
	r.open()
	f := r.connect()
	const pieces = 8
	want := make([]byte, pieces*128<<10)
	for i := range want {
		want[i] = byte(i * i >> 7)
	}
	for piece := range pieces {
		r.queues[aTransmit].Add([]virtiotest.Buf{r.M.Put(want[piece*128<<10 : (piece+1)*128<<10])}, nil)
	}
	r.queues[aTransmit].Kick()
	got := read(t, f, 1000)
	r.Transport.Pause()
	r.Transport.Resume()
	r.queues[transmitQueue].Do([]virtiotest.Buf{r.M.Put([]byte("printed"))}, nil)
	if n := r.dev.Counters()["port1.sent_bytes"]; n == uint64(len(want)) {
		t.Fatalf("all of %d bytes were sent, read or not", n)
	}
	got = append(got, read(t, f, len(want)/2)...)
	r.Transport.Pause()
	r.Transport.Resume()
	got = append(got, read(t, f, len(want)-len(got))...)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came changed", len(got))
	}
	for range pieces {
		r.queues[aTransmit].Wait()
	}
}

// TestPortGuestCloses closes the port behind what the guest has written: the client gets
// that, and then the end.
func TestPortGuestCloses(t *testing.T) {
	r := newPortRig(t)
	r.open()
	f := r.connect()
	want := bytes.Repeat([]byte("farewell"), 64<<10)
	r.queues[aTransmit].Add(r.M.Put(want).Cut(1<<20), nil)
	r.queues[aTransmit].Kick()
	r.say(1, eventPortOpen, 0)
	if _, err := r.dev.Connect("org.a.0"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Connect after the guest has closed: %v", err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
	r.hears(control{port: 1, event: eventPortOpen, value: 0})
	r.say(1, eventPortOpen, 1)
	r.connect()
}

func TestPortReset(t *testing.T) {
	r := newPortRig(t)
	r.open()
	f := r.connect()
	r.start(all)
	if got, err := io.ReadAll(f); err != nil || len(got) > 0 {
		t.Errorf("after a reset: %q, %v", got, err)
	}
	if _, err := r.dev.Connect("org.a.0"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Connect after a reset: %v", err)
	}
	r.open()
	r.connect()
	// A driver that knows no named ports has none.
	r.start(all &^ featMultiport)
	r.queues[hearQueue].Add([]virtiotest.Buf{r.M.Put(control{port: 1, event: eventPortOpen, value: 1}.bytes())}, nil)
	r.queues[hearQueue].Kick()
	r.queues[transmitQueue].Do([]virtiotest.Buf{r.M.Put([]byte("printed"))}, nil)
	if _, err := r.dev.Connect("org.a.0"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Connect without the feature: %v", err)
	}
}

// TestPortPausedClient connects and leaves while the device stands still.
func TestPortPausedClient(t *testing.T) {
	r := newPortRig(t)
	r.open()
	r.Transport.Pause()
	f, err := r.dev.Connect("org.a.0")
	r.M.Must(err)
	defer f.Close()
	r.Transport.Resume()
	r.hears(control{port: 1, event: eventPortOpen, value: 1})
	_, err = f.WriteString("after it")
	r.M.Must(err)
	r.receives("after it")
	r.queues[aTransmit].Do([]virtiotest.Buf{r.M.Put([]byte("answer"))}, nil)
	if got := read(t, f, 6); string(got) != "answer" {
		t.Errorf("the client reads %q", got)
	}
}

// TestPortNonsense sends what the specification does not know: it is counted, and has no
// effect. Buffers of the wrong direction or size break the device.
func TestPortNonsense(t *testing.T) {
	r := newPortRig(t)
	messages := []control{
		{port: 3, event: eventPortReady, value: 1}, {port: 0xffffffff, event: eventPortOpen, value: 1},
		{port: 1, event: eventDeviceAdd, value: 1}, {port: 1, event: eventConsolePort, value: 1}, {port: 1, event: 0xffff},
	}
	for _, m := range messages {
		r.say(m.port, m.event, m.value)
	}
	r.queues[hearQueue].Do([]virtiotest.Buf{r.M.Put([]byte("short"))}, nil)
	if got, want := r.dev.Counters()["bad_control_messages"], uint64(len(messages)+1); got != want {
		t.Errorf("%d messages were bad, want %d", got, want)
	}
	for range 1000 { // of which each asks for answers
		r.say(0, eventDeviceReady, 1)
		r.say(1, eventPortReady, 1)
		if r.M.Reuse(t); r.dev.Counters()["bad_control_messages"] > 100 {
			t.Fatal("good messages are taken for bad ones")
		}
	}
	r.hears(control{port: 0, event: eventDeviceAdd}, control{port: 1, event: eventPortName, value: 1, name: "org.a.0"},
		control{port: 2, event: eventDeviceAdd})

	for name, hit := range map[string]func(){
		"a name that does not fit": func() {
			r.say(1, eventPortReady, 1)
			r.queues[tellQueue].Add(nil, []virtiotest.Buf{r.M.Room(8)})
			r.queues[tellQueue].Kick()
		},
		"a message to be written": func() {
			r.queues[hearQueue].Add(nil, []virtiotest.Buf{r.M.Room(8)})
			r.queues[hearQueue].Kick()
		},
		"output to be written": func() {
			r.queues[aTransmit].Add(nil, []virtiotest.Buf{r.M.Room(8)})
			r.queues[aTransmit].Kick()
		},
		"input to be read": func() {
			r.open()
			f := r.connect()
			_, err := f.WriteString("x")
			r.M.Must(err)
			r.queues[aReceive].Add([]virtiotest.Buf{r.M.Room(8)}, nil)
			r.queues[aReceive].Kick()
		},
	} {
		r.start(all)
		t.Log(name)
		hit()
		r.WaitBroken()
	}
	r.start(all)
	r.open()
	r.connect()
}

func TestPortState(t *testing.T) {
	r := newPortRig(t)
	r.open()
	f := r.connect()
	r.Transport.Pause()
	s := r.dev.Save()
	want := []PortState{{}, {Ready: true, Connected: true, Open: true}, {}}
	if d := cmp.Diff(want, s.Ports); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
	r.M.Must(r.dev.Restore(s))
	if got, err := io.ReadAll(f); err != nil || len(got) > 0 {
		t.Errorf("a client after Restore: %q, %v", got, err)
	}
	if err := r.dev.Restore(State{}); !errors.Is(err, ErrConfig) {
		t.Errorf("Restore of a console without ports: %v", err)
	}
	r.Transport.Resume()
	r.hears(control{port: 1, event: eventPortOpen, value: 0})
	r.connect()
}

// FuzzPorts lets a driver fill the descriptors of the control queues and of a port's at
// will, and write any messages, while a client sends and leaves.
func FuzzPorts(f *testing.F) {
	message := func(c control) []byte { return c.bytes() }
	desc := func(flags uint16) []byte {
		b := binary.LittleEndian.AppendUint64(nil, 0x4000)
		b = binary.LittleEndian.AppendUint32(b, 64)
		return binary.LittleEndian.AppendUint16(b, flags)
	}
	open := append(message(control{port: 1, event: eventPortReady, value: 1}), message(control{port: 1, event: eventPortOpen, value: 1})...)
	f.Add(open, desc(2), desc(0), desc(2), desc(0), uint16(1))
	f.Add(append(message(control{event: eventDeviceReady, value: 1}), open...), desc(0), desc(2), desc(0), desc(2), uint16(3))
	f.Add([]byte("nonsense"), []byte{}, desc(1), desc(3), desc(4), uint16(1<<14|7))
	r := newPortRig(f)
	f.Fuzz(func(t *testing.T, messages, tell, hear, rx, tx []byte, idx uint16) {
		r.M.Reuse(t)
		features := r.Negotiate(virtiotest.FuzzFeatures(all, idx))
		for i, desc := range [][]byte{tellQueue: tell, hearQueue: hear, aReceive: rx, aTransmit: tx} {
			r.queues[i].Fuzz(features, desc, idx)
		}
		r.AddStatus(virtio.DriverOK)
		for ; len(messages) >= controlSize; messages = messages[controlSize:] {
			r.dev.heard(binary.LittleEndian.Uint32(messages), binary.LittleEndian.Uint16(messages[4:]), binary.LittleEndian.Uint16(messages[6:]))
		}
		if c, err := r.dev.Connect("org.a.0"); err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(virtiotest.Patience))
			_, _ = c.WriteString("from the client")
			c.Close()
		}
		for _, i := range []int{tellQueue, hearQueue, aReceive, aTransmit} {
			r.queues[i].Kick()
		}
		r.queues[hearQueue].Settle()
		r.Reset()
	})
}
