package net

import (
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// An idle path serves nothing.
type idle struct{ active bool }

func (*idle) queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{{MaxSize: queueSize}, {MaxSize: queueSize}}
}
func (*idle) ring() virtio.Features { return featMrgRxbuf | virtio.FeatureEventIdx }
func (*idle) kickCount() uint64     { return 0 }
func (*idle) close() error          { return nil }
func (p *idle) stop()               { p.active = false }
func (p *idle) start(a virtio.Activation) error {
	if len(a.Queues) != pair {
		return queue.ErrMalformed
	}
	p.active = true
	return nil
}

// A fakeTap notes which of its queues are attached.
type fakeTap struct {
	mu     sync.Mutex
	queues []bool
}

func (f *fakeTap) attach(i int, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queues[i] == on {
		return errors.New("is so already")
	}
	f.queues[i] = on
	return nil
}

// wide makes a device with n idle pairs.
func wide(t testing.TB, n int) (*Device, *fakeTap) {
	t.Helper()
	tap := &fakeTap{queues: slices.Repeat([]bool{true}, n)}
	d := &Device{c: Config{Pairs: make([]Pair, n), MAC: guestMAC}, attached: n,
		offload: func(virtio.Features) error { return nil },
		attach:  tap.attach}
	for i := range n {
		d.paths = append(d.paths, &idle{})
		f, err := os.Open(os.DevNull)
		must(t, err)
		d.c.Pairs[i].Tap = f
	}
	var err error
	d.control, err = worker.New("net-control-kick")
	must(t, err)
	must(t, d.setPairs(1))
	return d, tap
}

// attachedOf is how many queues, the first ones, are attached; -1 where it is others.
func attachedOf(f *fakeTap) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n < len(f.queues) && f.queues[n] {
		n++
	}
	if slices.Contains(f.queues[n:], true) {
		return -1
	}
	return n
}

// startWide starts a driver that uses the control queue.
func startWide(r *virtiotest.Driver, d *Device) *virtiotest.Ring {
	f := r.Negotiate(featCtrlVQ | featMQ | virtio.FeatureEventIdx)
	for i := range len(d.paths) * pair {
		r.Queue(i, 16, f)
	}
	control := r.Queue(len(d.paths)*pair, 16, f)
	r.Start()
	return control
}

func TestControl(t *testing.T) {
	d, tap := wide(t, 4)
	r := virtiotest.NewMachine(t).Plug(d)
	var config [configSize]byte
	d.ReadConfig(0, config[:])
	if config[cfgMaxPairs] != 4 || config[cfgMaxPairs+1] != 0 {
		t.Errorf("max_virtqueue_pairs = % x, want 4", config[cfgMaxPairs:cfgMaxPairs+2])
	}
	control := startWide(r, d)
	if n := attachedOf(tap); n != 1 {
		t.Fatalf("%d queues of the tap are attached at the start, want 1", n)
	}
	for _, tt := range []struct {
		command []byte
		ack     byte
		pairs   int
	}{
		{[]byte{classMQ, setPairs, 3, 0}, ackOK, 3},
		{[]byte{classMQ, setPairs, 4, 0}, ackOK, 4},
		{[]byte{classMQ, setPairs, 2, 0}, ackOK, 2},
		{[]byte{classMQ, setPairs, 0, 0}, ackError, 2},
		{[]byte{classMQ, setPairs, 5, 0}, ackError, 2},
		{[]byte{classMQ, setPairs, 3, 1}, ackError, 2},
		{[]byte{classMQ, 1, 3, 0}, ackError, 2},
		{[]byte{0, 0, 1, 0}, ackError, 2},
		{[]byte{classMQ}, ackError, 2},
		{[]byte{classMQ, setPairs, 2, 0}, ackOK, 2},
	} {
		answer := r.M.Room(1)
		control.Do([]virtiotest.Buf{r.M.Put(tt.command)}, []virtiotest.Buf{answer})
		if ack := r.M.Bytes(answer)[0]; ack != tt.ack || attachedOf(tap) != tt.pairs {
			t.Errorf("command % x: answer %d, %d pairs, want %d and %d", tt.command, ack, attachedOf(tap), tt.ack, tt.pairs)
		}
	}
	r.Transport.Pause()
	s := r.Transport.Save()
	r.M.Must(r.Transport.Restore(s))
	r.Transport.Resume()
	if n := attachedOf(tap); n != 2 {
		t.Errorf("%d pairs after a pause, want 2", n)
	}
	r.Reset()
	startWide(r, d)
	if n := attachedOf(tap); n != 1 {
		t.Errorf("%d pairs after a reset, want 1", n)
	}
}

// Without VIRTIO_NET_F_MQ there is one pair, and no control queue.
func TestOnePairWithoutMQ(t *testing.T) {
	d, tap := wide(t, 2)
	r := virtiotest.NewMachine(t).Plug(d)
	f := r.Negotiate(featCtrlVQ)
	for i := range pair {
		r.Queue(i, 16, f)
	}
	r.Start()
	if n := attachedOf(tap); n != 1 || !d.paths[0].(*idle).active || d.paths[1].(*idle).active {
		t.Errorf("%d pairs are attached, paths %v, want the first alone", n, d.paths)
	}
	r.Reset()
	if d.paths[0].(*idle).active {
		t.Error("the path is active after a reset")
	}
}

func TestStateOfPairs(t *testing.T) {
	d, tap := wide(t, 3)
	for n, ok := range map[int]bool{0: false, -1: false, 4: false, 2: true} {
		if err := d.Restore(State{Pairs: n}); (err == nil) != ok {
			t.Errorf("Restore of %d pairs: %v", n, err)
		}
	}
	if s := d.Save(); s.Pairs != 2 || attachedOf(tap) != 2 {
		t.Errorf("state %+v, %d attached, want 2", s, attachedOf(tap))
	}
}

// FuzzControl lets a driver fill the descriptors of the control queue at will.
func FuzzControl(f *testing.F) {
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 1, 0, 0, 80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, uint16(1))
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}, uint16(16))
	d, tap := wide(f, 4)
	r := virtiotest.NewMachine(f).Plug(d)
	control := startWide(r, d)
	f.Fuzz(func(t *testing.T, desc []byte, idx uint16) {
		r.M.Reuse(t)
		features := r.Negotiate(featCtrlVQ | featMQ)
		control.Fuzz(features, desc, idx)
		r.AddStatus(virtio.DriverOK)
		control.Kick()
		control.Settle()
		r.Reset()
		if n := attachedOf(tap); n < 1 || n != d.attached {
			t.Errorf("%d queues attached, noted %d", n, d.attached)
		}
	})
}
