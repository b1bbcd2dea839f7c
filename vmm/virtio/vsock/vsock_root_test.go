//go:build roottest

package vsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

const (
	all      = ^virtio.Features(0)
	guestCID = 1000
	hostCID  = 2
	hostPort = 5000
	ringSize = 16
	bufSize  = hdrSize + 4096
)

// struct virtio_vsock_hdr (section 5.10.6) and its operations.
const (
	hdrSize   = 44
	opRequest = 1
	opAnswer  = 2
	opRW      = 5
	opCredit  = 6
	typ       = 1 // VIRTIO_VSOCK_TYPE_STREAM
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type packet struct {
	src, dst         uint64
	srcPort, dstPort uint32
	op               uint16
	data             []byte
}

// A rig is a driver of the device.
type rig struct {
	*virtiotest.Driver
	cid    uint64
	rx, tx *virtiotest.Ring
	room   map[uint16]virtiotest.Buf
}

func newRig(t testing.TB, cid uint32, want virtio.Features) *rig {
	t.Helper()
	d, err := New(Config{Vhost: openVhost(t), CID: cid})
	must(t, err)
	r := &rig{Driver: virtiotest.NewMachine(t).Plug(d), cid: uint64(cid)}
	r.start(want)
	return r
}

func openVhost(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("%v: this test needs CONFIG_VHOST_VSOCK: run it by qemu-tests/roottest", err)
	}
	return f
}

func (r *rig) start(want virtio.Features) {
	f := r.Negotiate(want)
	r.rx, r.tx, r.room = r.Queue(0, ringSize, f), r.Queue(1, ringSize, f), map[uint16]virtiotest.Buf{}
	r.Queue(2, eventQueueSize, f)
	r.Start()
	for range ringSize {
		r.offer(r.M.Room(bufSize))
	}
	r.rx.Kick()
}

// offer makes room for a packet from the host.
func (r *rig) offer(b virtiotest.Buf) { r.room[r.rx.Add(nil, []virtiotest.Buf{b})] = b }

func (r *rig) send(p packet) {
	r.M.T.Helper()
	h := make([]byte, hdrSize, hdrSize+len(p.data))
	le := binary.LittleEndian
	le.PutUint64(h, p.src)
	le.PutUint64(h[8:], p.dst)
	le.PutUint32(h[16:], p.srcPort)
	le.PutUint32(h[20:], p.dstPort)
	le.PutUint32(h[24:], uint32(len(p.data)))
	le.PutUint16(h[28:], typ)
	le.PutUint16(h[30:], p.op)
	le.PutUint32(h[36:], 1<<20) // buf_alloc
	r.tx.Do([]virtiotest.Buf{r.M.Put(append(h, p.data...))}, nil)
}

// to sends to the host.
func (r *rig) to(op uint16, port uint32, data []byte) {
	r.M.T.Helper()
	r.send(packet{src: r.cid, dst: hostCID, srcPort: port, dstPort: hostPort, op: op, data: data})
}

// recv waits for a packet of this kind to a port. It leaves out those about credit, and
// what the kernel still has to say of earlier connections.
func (r *rig) recv(op uint16, port uint32) packet {
	r.M.T.Helper()
	for {
		head, n := r.rx.Wait()
		b := bytes.Clone(r.M.Bytes(r.room[head])[:n])
		r.offer(r.room[head])
		r.rx.Kick()
		le := binary.LittleEndian
		p := packet{le.Uint64(b), le.Uint64(b[8:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint16(b[30:]), b[hdrSize:]}
		if p.src != hostCID || p.dst != r.cid {
			r.M.T.Fatalf("packet from %d to %d", p.src, p.dst)
		}
		if p.dstPort != port || p.op == opCredit {
			continue
		}
		if p.op == op {
			return p
		}
		r.M.T.Fatalf("packet %+v, want operation %d", p, op)
	}
}

// A conn is a connection of the guest's to the host.
type conn struct {
	r    *rig
	port uint32
	host *os.File
}

// bytes waits for n bytes of the host's.
func (c *conn) bytes(n int) []byte {
	c.r.M.T.Helper()
	var out []byte
	for len(out) < n {
		out = append(out, c.r.recv(opRW, c.port).data...)
	}
	return out
}

// listen is a port of the host.
func listen(t testing.TB) int {
	t.Helper()
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(l) })
	must(t, unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: hostPort}))
	must(t, unix.Listen(l, 4))
	must(t, unix.SetsockoptTimeval(l, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	return l
}

// lastPort is the guest's port of the last connection: the kernel remembers one that the
// guest has forgotten for some seconds.
var lastPort uint32

// connect connects the guest to the host's port l.
func (r *rig) connect(l int) *conn {
	r.M.T.Helper()
	lastPort++
	c := &conn{r: r, port: lastPort}
	r.to(opRequest, c.port, nil)
	r.recv(opAnswer, c.port)
	fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(r.M.T, err)
	c.host = os.NewFile(uintptr(fd), "vsock")
	r.M.T.Cleanup(func() { c.host.Close() })
	return c
}

// exchange sends 3000 bytes each way.
func (c *conn) exchange(fill byte) {
	t := c.r.M.T
	t.Helper()
	want := bytes.Repeat([]byte{fill}, 3000)
	c.r.to(opRW, c.port, want)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.host, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the host got something else, %v", err)
	}
	_, err := c.host.Write(want)
	must(t, err)
	if got := c.bytes(len(want)); !bytes.Equal(got, want) {
		t.Fatal("the guest got something else")
	}
}

func TestConnection(t *testing.T) {
	l := listen(t)
	for _, tt := range []struct {
		name  string
		feats virtio.Features
	}{{"all", all}, {"no event index", all &^ virtio.FeatureEventIdx}, {"nothing", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, guestCID, tt.feats)
			if cid := r.Device(0, 8); cid != guestCID {
				t.Errorf("guest_cid = %d", cid)
			}
			c := r.connect(l)
			for i := range 20 { // round the rings
				c.exchange(byte(i))
			}
			for i := range 5 {
				r.Transport.Pause()
				sent := []byte{byte(i), 'x'}
				_, err := c.host.Write(sent) // waits for the guest
				must(t, err)
				s := r.Transport.Save()
				r.M.Must(r.Transport.Restore(s))
				r.Transport.Resume()
				if got := c.bytes(len(sent)); !bytes.Equal(got, sent) {
					t.Fatalf("after a pause came %x, want %x", got, sent)
				}
				c.exchange(byte(i))
			}
			// A driver that is reloaded in the middle.
			_, err := c.host.Write(make([]byte, 100_000))
			must(t, err)
			r.start(tt.feats)
			for i := range 3 {
				r.connect(l).exchange(byte(i))
			}
			for name, n := range r.Transport.Device().(*Device).Counters() {
				if n != 0 {
					t.Errorf("%s = %d", name, n)
				}
			}
		})
	}
}

// TestOnlyTheHost sends what is for another guest, or says that it is from another one:
// nobody gets it.
func TestOnlyTheHost(t *testing.T) {
	l := listen(t)
	one, other := newRig(t, guestCID, all), newRig(t, guestCID+1, all)
	for _, p := range []packet{
		{src: one.cid, dst: other.cid}, {src: other.cid, dst: hostCID}, {src: other.cid, dst: one.cid}, {src: hostCID, dst: other.cid},
		{src: one.cid, dst: 1}, {src: one.cid, dst: 1<<32 - 1}, {src: one.cid, dst: 1 << 40},
	} {
		p.srcPort, p.dstPort, p.op = 1<<20, hostPort, opRequest
		one.send(p)
	}
	one.connect(l).exchange(1)
	other.connect(l).exchange(2)
}

func TestMalformed(t *testing.T) {
	l := listen(t)
	r := newRig(t, guestCID, all)
	for _, chain := range []struct {
		name               string
		readable, writable []virtiotest.Buf
	}{
		{"to be written", nil, []virtiotest.Buf{r.M.Room(100)}},
		{"too short", []virtiotest.Buf{r.M.Room(10)}, nil},
		{"outside of the memory", []virtiotest.Buf{{GPA: 1 << 40, Len: hdrSize}}, nil},
	} {
		t.Log(chain.name)
		r.tx.Add(chain.readable, chain.writable)
		r.tx.Kick()
		r.WaitBroken()
		r.start(all)
	}
	r.connect(l).exchange(1)
	// A driver that leaves out a queue.
	f := r.Negotiate(all)
	r.Queue(0, ringSize, f)
	r.AddStatus(virtio.DriverOK)
	r.WaitBroken()
	r.start(all)
	r.connect(l).exchange(2)
}

func TestCID(t *testing.T) {
	newRig(t, guestCID, all)
	if d, err := New(Config{Vhost: openVhost(t), CID: guestCID}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("New with a CID that is in use = %v, %v, want EADDRINUSE", d, err)
	}
	for _, cid := range []uint32{0, 1, 2, 1<<32 - 1} {
		if _, err := New(Config{Vhost: openVhost(t), CID: cid}); !errors.Is(err, ErrConfig) {
			t.Errorf("New with CID %d = %v, want ErrConfig", cid, err)
		}
	}
}
