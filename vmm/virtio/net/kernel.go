package net

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// errVhost says that the kernel found something wrong with a queue.
var errVhost = errors.New("vhost-net found a queue malformed")

// A kernelPath is vhost-net.
type kernelPath struct {
	d     *Device
	v     *vhost.Device
	tap   *os.File
	kicks [pair]*os.File
	errs  *os.File // signalled by vhost, or by stop

	// While active:
	mem      *memory.Memory
	live     [pair]*virtio.Queue
	stopping atomic.Bool
	watching chan struct{} // closed at the end of watch
}

func newKernelPath(d *Device, v *vhost.Device, tap *os.File) (*kernelPath, error) {
	p := &kernelPath{d: d, v: v, tap: tap}
	var err error
	if p.errs, err = eventfd.New("vhost-error", false); err != nil {
		return nil, err
	}
	for i := range p.kicks {
		if p.kicks[i], err = eventfd.New("vhost-kick", true); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

func (p *kernelPath) queues() []virtio.QueueSpec {
	var specs []virtio.QueueSpec
	for _, k := range p.kicks {
		specs = append(specs, virtio.QueueSpec{MaxSize: queueSize, Kick: k})
	}
	return specs
}

// kickCount is 0: kicks go to the kernel's thread.
func (p *kernelPath) kickCount() uint64 { return 0 }

func (p *kernelPath) ring() virtio.Features {
	const want = featMrgRxbuf | virtio.FeatureIndirectDesc | virtio.FeatureEventIdx
	return want & virtio.Features(p.v.Features())
}

func (p *kernelPath) start(a virtio.Activation) error {
	p.mem = a.Memory
	p.stopping.Store(false)
	p.watching = make(chan struct{})
	go p.watch(p.watching, a.Broken)
	if err := p.begin(a); err != nil {
		p.stop()
		return err
	}
	return nil
}

func (p *kernelPath) begin(a virtio.Activation) error {
	if err := p.v.SetFeatures(uint64(a.Features) & p.v.Features()); err != nil {
		return err
	}
	if err := p.v.SetMemory(a.Memory); err != nil {
		return err
	}
	for i, q := range a.Queues {
		if q == nil {
			continue
		}
		index := uint32(i)
		if err := p.v.SetQueue(index, a.Memory, q.Config, p.kicks[i], p.errs); err != nil {
			return err
		}
		q.OnCall(func(f *os.File) {
			if err := p.v.SetCall(index, f); err != nil {
				a.Broken(err)
			}
		})
		p.live[i] = q
		if err := p.v.SetBackend(index, p.tap); err != nil {
			return err
		}
		// What was made available before has kicked already, or never will.
		if err := eventfd.Signal(p.kicks[i]); err != nil {
			return err
		}
	}
	return nil
}

// watch waits for vhost to complain.
func (p *kernelPath) watch(done chan struct{}, broken func(error)) {
	defer close(done)
	for {
		if err := eventfd.Wait(p.errs); err != nil {
			broken(err)
			return
		}
		if p.stopping.Load() {
			return
		}
		broken(errVhost)
	}
}

func (p *kernelPath) stop() {
	for i, q := range p.live {
		if q == nil {
			continue
		}
		if err := p.stopQueue(uint32(i), q); err != nil {
			p.d.metrics.errors.Add(1)
		}
		p.live[i] = nil
	}
	p.stopping.Store(true)
	if err := eventfd.Signal(p.errs); err == nil {
		<-p.watching
	}
	p.mem = nil
}

// stopQueue stops a queue and notes how far it came.
func (p *kernelPath) stopQueue(i uint32, q *virtio.Queue) error {
	if err := p.v.SetBackend(i, nil); err != nil {
		return err
	}
	err := p.v.SetCall(i, nil)
	avail, err1 := p.v.Base(i)
	used, err2 := p.mem.Load16(q.Config.Device + 2)
	if err := errors.Join(err, err1, err2); err != nil {
		return fmt.Errorf("stop queue %d: %w", i, err)
	}
	q.Config.Start.Avail, q.Config.Start.Used = avail, used
	return nil
}

func (p *kernelPath) close() error {
	errs := []error{p.v.Close()}
	for _, f := range append(p.kicks[:], p.errs) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
