package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

var all = ^virtio.Features(0)

func TestMain(m *testing.M) { os.Exit(virtiotest.Both(m, &all)) }

var guestMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}

// A wire is what the device has for a tap, and the other end of it. Here it is a
// socket, which needs no rights; tap_test.go has the real one.
type wire struct {
	tap   *os.File
	host  int
	isTap bool
	vhost *os.File // or nil
}

// newPipe makes a wire of two sockets that keep packets apart.
func newPipe(t testing.TB) *wire {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fds[1]) })
	must(t, unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	return &wire{tap: os.NewFile(uintptr(fds[0]), "pipe"), host: fds[1]}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// etherType marks the tests' frames among the host's own (IPv6 and such).
const etherType = 0x88b5

func frame(n int, fill byte) []byte {
	b := append(append([]byte{}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), guestMAC...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, bytes.Repeat([]byte{fill}, n-14)...)
}

func isOurs(b []byte) bool { return len(b) >= 14 && binary.BigEndian.Uint16(b[12:]) == etherType }

// recv waits for a frame from the guest on the host's side.
func (w *wire) recv(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(w.host, b, 0)
		must(t, err)
		if !w.isTap {
			return b[headerSize:n]
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING && isOurs(b[:n]) {
			return b[:n]
		}
	}
}

func (w *wire) send(t testing.TB, b []byte) {
	t.Helper()
	if !w.isTap {
		b = append(make([]byte, headerSize), b...)
	}
	_, err := unix.Write(w.host, b)
	must(t, err)
}

type rig struct {
	*virtiotest.Driver
	dev      *Device
	w        *wire
	features virtio.Features
	rx, tx   *virtiotest.Ring
}

func newRig(t testing.TB, w *wire, want virtio.Features) *rig {
	t.Helper()
	c := Config{Pairs: []Pair{{w.tap, w.vhost}}, MAC: guestMAC, MTU: 1400}
	var d *Device
	var err error
	if w.isTap {
		d, err = New(c)
	} else {
		d = &Device{c: c, offload: func(virtio.Features) error { return nil }}
		var p dataPath
		p, err = newUserPath(d, w.tap)
		d.paths = []dataPath{p}
		d.attached = 1
	}
	must(t, err)
	r := &rig{dev: d, w: w, Driver: virtiotest.NewMachine(t).Plug(d)}
	r.start(want)
	return r
}

func (r *rig) start(want virtio.Features) {
	r.features = r.Negotiate(want)
	r.rx, r.tx = r.Queue(receiveQueue, 16, r.features), r.Queue(transmitQueue, 16, r.features)
	r.Start()
}

// transmit sends b as the guest.
func (r *rig) transmit(b []byte) {
	r.M.T.Helper()
	packet := append(make([]byte, headerSize), b...)
	r.tx.Do(r.M.Put(packet).Cut(1000), nil)
}

// receive waits for one of the tests' frames in receive buffers of n bytes.
func (r *rig) receive(n int) []byte {
	r.M.T.Helper()
	bufs := make(map[uint16]virtiotest.Buf)
	for range r.rx.Size {
		b := r.M.Room(n)
		bufs[r.rx.Add(nil, []virtiotest.Buf{b})] = b
	}
	r.rx.Kick()
	for {
		var packet []byte
		for left := 1; left > 0; left-- {
			head, used := r.rx.Wait()
			part := r.M.Bytes(bufs[head])[:used]
			if packet == nil && r.features.Has(featMrgRxbuf) {
				left = int(binary.LittleEndian.Uint16(part[numBuffers:]))
			}
			packet = append(packet, part...)
		}
		if isOurs(packet[headerSize:]) {
			return packet[headerSize:]
		}
	}
}

func testPackets(t *testing.T, newWire func(testing.TB) *wire) {
	for _, tt := range []struct {
		name  string
		feats virtio.Features
		room  int // of a receive buffer
	}{
		{"all", all, 600},
		{"one buffer", all &^ featMrgRxbuf, 2000},
		{"nothing", 0, 2000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, newWire(t), tt.feats)
			for i := range 20 { // round the ring
				want := frame(60+i*70, byte(i))
				r.transmit(want)
				if got := r.w.recv(t); !bytes.Equal(got, want) {
					t.Fatalf("host got %d bytes, want %d of the same", len(got), len(want))
				}
			}
			for i := range 3 {
				want := frame(60+i*700, byte(i))
				r.w.send(t, want)
				if got := r.receive(tt.room); !bytes.Equal(got, want) {
					t.Fatalf("guest got %d bytes, want %d of the same", len(got), len(want))
				}
				r.start(tt.feats) // a driver that is reloaded
			}
		})
	}
}

func TestUserPath(t *testing.T) { testPackets(t, newPipe) }

func TestConfigSpace(t *testing.T) {
	r := newRig(t, newPipe(t), all)
	var mac [6]byte
	for i := range mac {
		mac[i] = byte(r.Device(uint64(cfgMAC+i), 1))
	}
	if !bytes.Equal(mac[:], guestMAC) {
		t.Errorf("mac = %x, want %x", mac, guestMAC)
	}
	if s, m := r.Device(cfgStatus, 2), r.Device(cfgMTU, 2); s != statusLinkUp || m != 1400 {
		t.Errorf("status = %d, MTU = %d; want 1, 1400", s, m)
	}
	r.SetDevice(0, 4, 0)
	if v := r.Device(0, 1); v != 2 {
		t.Errorf("mac[0] after a write = %#x, want 2", v)
	}
}

func TestMalformed(t *testing.T) {
	r := newRig(t, newPipe(t), all)
	buf := []virtiotest.Buf{r.M.Room(100)}
	r.tx.Add(nil, buf)
	r.tx.Kick()
	r.WaitBroken()
	r.start(all)
	r.rx.Add(buf, nil)
	r.rx.Kick()
	r.w.send(t, frame(60, 1))
	r.WaitBroken()
	r.start(all)
	r.transmit(frame(60, 2))
	r.w.recv(t)
}

// TestTooLarge drops what no tap takes, and what no buffer holds.
func TestTooLarge(t *testing.T) {
	r := newRig(t, newPipe(t), 0)
	d := r.Transport.Device().(*Device)
	r.tx.Do([]virtiotest.Buf{r.M.Room(maxPacket + 1)}, nil)
	if n := d.Counters()["tx_dropped"]; n != 1 {
		t.Errorf("tx_dropped = %d, want 1", n)
	}
	r.rx.Add(nil, []virtiotest.Buf{r.M.Room(50)})
	r.rx.Kick()
	r.w.send(t, frame(500, 1))
	for end := time.Now().Add(virtiotest.Patience); d.Counters()["rx_dropped"] == 0; {
		if time.Now().After(end) {
			t.Fatal("packet larger than the buffer was not dropped")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPause(t *testing.T) {
	r := newRig(t, newPipe(t), all)
	for i := range 10 {
		r.Transport.Pause()
		s := r.Transport.Save()
		r.M.Must(r.Transport.Restore(s))
		r.Transport.Resume()
		r.transmit(frame(100, byte(i)))
		if got := r.w.recv(t); got[14] != byte(i) {
			t.Fatalf("frame %d after a pause is of %d", i, got[14])
		}
	}
}

func TestNewRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for _, c := range []Config{
		{MAC: guestMAC},
		{Pairs: []Pair{{}}, MAC: guestMAC},
		{Pairs: []Pair{{Tap: null}}, MAC: guestMAC[:5]},
		{Pairs: []Pair{{Tap: null}}, MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}},
		{Pairs: []Pair{{Tap: null}}, MAC: guestMAC, MTU: 67},
		{Pairs: make([]Pair, MaxPairs+1), MAC: guestMAC},
	} {
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("New(%+v) = %v, want ErrConfig", c, err)
		}
	}
	if _, err := New(Config{Pairs: []Pair{{Tap: null}}, MAC: guestMAC}); err == nil {
		t.Error("New took /dev/null for a tap")
	}
}

// FuzzNet lets a driver fill the descriptors of both queues at will.
func FuzzNet(f *testing.F) {
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 2, 0, 0, 0}, []byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0}, uint16(3))
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}, []byte{0, 64, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0, 1, 0, 0, 0}, uint16(16))
	w := newPipe(f)
	r := newRig(f, w, all)
	rx, tx := r.rx, r.tx
	f.Fuzz(func(t *testing.T, rxDesc, txDesc []byte, idx uint16) {
		r.M.Reuse(t)
		features := r.Negotiate(virtiotest.FuzzFeatures(all, idx))
		rx.Fuzz(features, rxDesc, idx)
		tx.Fuzz(features, txDesc, idx)
		r.AddStatus(virtio.DriverOK)
		rx.Kick()
		tx.Kick()
		_, err := unix.SendmsgN(w.host, make([]byte, 300), nil, nil, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EAGAIN) { // the last round left it full
			t.Fatal(err)
		}
		tx.Settle()
		r.Reset()
		for b := make([]byte, 1<<17); ; { // what came out of it
			if _, _, err := unix.Recvfrom(w.host, b, unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
	})
}
