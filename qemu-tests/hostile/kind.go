package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// A kind is a type of device: what an honest driver asks of it, and nonsense in requests that
// are whole.
type kind struct {
	id     uint16 // VIRTIO 1.2 section 5
	name   string
	queues int // that are used
	target int // the queue that is attacked
	// inward tells that buffers of the target queue are the device's to write, all of them.
	inward  bool
	honest  func(*device) error
	message func(r *rand.Rand) []buffer // nonsense
}

var kinds = []*kind{
	{1, "net", 2, 1, false, honestNet, nonsenseNet},
	{2, "disk", 1, 0, false, honestDisk, nonsenseDisk},
	{3, "console", 2, 1, false, honestConsole, nonsenseConsole},
	{4, "entropy", 1, 0, true, honestEntropy, nonsenseEntropy},
	{5, "balloon", 4, 0, false, honestBalloon, nil},
	{19, "vsock", 3, 1, false, honestVsock, nonsenseVsock},
}

const sector = 512

// diskHeader is struct virtio_blk_req's beginning (section 5.2.6).
func diskHeader(typ uint32, at uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(typ))
	return binary.LittleEndian.AppendUint64(b, at)
}

// honestDisk writes a sector and reads it again.
func honestDisk(d *device) error {
	const in, out = 0, 1
	want := make([]byte, sector)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	r := d.rings[0]
	p, _, err := r.request(buffer{out: diskHeader(out, 0)}, buffer{out: want}, buffer{room: 1})
	if err != nil {
		return err
	}
	if s := d.a.b[p[2]]; s != 0 {
		return fmt.Errorf("write: status %d", s)
	}
	if p, _, err = r.request(buffer{out: diskHeader(in, 0)}, buffer{room: sector}, buffer{room: 1}); err != nil {
		return err
	}
	if s := d.a.b[p[2]]; s != 0 || !bytes.Equal(d.a.b[p[1]:][:sector], want) {
		return fmt.Errorf("read: status %d, or other bytes than were written", s)
	}
	return nil
}

func nonsenseDisk(r *rand.Rand) []buffer {
	types := []uint32{0, 1, 4, 8, 11, 13, 2, 10, r.Uint32()}
	at := []uint64{r.Uint64(), uint64(r.IntN(1 << 14)), 1<<64 - 1, 1 << 55}
	b := []buffer{{out: diskHeader(types[r.IntN(len(types))], at[r.IntN(len(at))])}}
	n := r.IntN(2048)
	if r.IntN(2) == 0 {
		b = append(b, buffer{out: noise(r, n+1)}, buffer{room: 1})
	} else {
		b = append(b, buffer{room: n + 1})
	}
	return b
}

func honestEntropy(d *device) error {
	_, n, err := d.rings[0].request(buffer{room: 64})
	if err == nil && n == 0 {
		err = fmt.Errorf("%d bytes of entropy", n)
	}
	return err
}

func nonsenseEntropy(r *rand.Rand) []buffer {
	return []buffer{{room: 1 + r.IntN(8000)}}
}

func honestConsole(d *device) error {
	_, _, err := d.rings[1].request(buffer{out: []byte("\n")})
	return err
}

// nonsenseConsole floods. Nobody takes lines of dots for answers.
func nonsenseConsole(r *rand.Rand) []buffer {
	return []buffer{{out: append(bytes.Repeat([]byte("."), r.IntN(2000)), '\n')}}
}

// netFrame is a frame that nobody answers, behind struct virtio_net_hdr.
func netFrame(header []byte, n int) []byte {
	f := append(header, bytes.Repeat([]byte{0xff}, 6)...)
	f = append(f, 2, 0, 0, 0, 0, 0x77, 0x88, 0xb5) // a local experiment's type (IEEE 802)
	return append(f, make([]byte, n)...)
}

const netHeaderSize = 12

func honestNet(d *device) error {
	_, _, err := d.rings[1].request(buffer{out: netFrame(make([]byte, netHeaderSize), 60)})
	return err
}

func nonsenseNet(r *rand.Rand) []buffer {
	if r.IntN(4) == 0 {
		return []buffer{{out: noise(r, 1+r.IntN(netHeaderSize+14))}}
	}
	return []buffer{{out: netFrame(noise(r, netHeaderSize), r.IntN(8000))}}
}

// Features of the balloon (section 5.5.3), which add a queue each.
const (
	balloonStats     = 1 << 1
	balloonReporting = 1 << 5
)

// honestBalloon gives a page and takes it back.
func honestBalloon(d *device) error {
	page := binary.LittleEndian.AppendUint32(nil, uint32(d.gpa(arenaSize-4096)/4096))
	for _, r := range d.rings[:2] {
		if _, _, err := r.request(buffer{out: page}); err != nil {
			return err
		}
	}
	return nil
}

// vsockHeader is struct virtio_vsock_hdr (section 5.10.6).
func vsockHeader(from, to uint64, fromPort, toPort, n uint32, typ, op uint16) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(nil, from), to)
	for _, v := range []uint32{fromPort, toPort, n, uint32(typ) | uint32(op)<<16, 0, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	return b
}

func honestVsock(d *device) error {
	const host, stream, rst = 2, 1, 3
	own := peek(d.bar, d.caps[capDevice].off, 8)
	_, _, err := d.rings[1].request(buffer{out: vsockHeader(own, host, 70, 71, 0, stream, rst)})
	return err
}

func nonsenseVsock(r *rand.Rand) []buffer {
	cids := []uint64{0, 1, 2, 3, 4, 1<<32 - 1, r.Uint64()}
	lengths := []uint32{0, 1, 100, 1 << 16, 1 << 31, 1<<32 - 1}
	h := vsockHeader(cids[r.IntN(len(cids))], cids[r.IntN(len(cids))], r.Uint32(), r.Uint32(),
		lengths[r.IntN(len(lengths))], uint16(r.IntN(4)), uint16(r.IntN(10)))
	return []buffer{{out: append(h, noise(r, r.IntN(200))...)[:1+r.IntN(44+1)]}}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
