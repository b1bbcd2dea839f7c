package net

import (
	"errors"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/vhost"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// A kernelPath is vhost-net.
type kernelPath struct {
	d *Device
	v *vhost.Device
	q *vhost.Queues
}

func newKernelPath(d *Device, v *vhost.Device, tap *os.File) (*kernelPath, error) {
	p := &kernelPath{d: d, v: v}
	var err error
	p.q, err = vhost.NewQueues(v, pair, func(on bool, queues []uint32) error {
		backend := tap
		if !on {
			backend = nil
		}
		var errs []error
		for _, i := range queues {
			errs = append(errs, v.SetBackend(i, backend))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *kernelPath) queues() []virtio.QueueSpec { return p.q.Specs(queueSize) }

// kickCount is 0: kicks go to the kernel's thread.
func (p *kernelPath) kickCount() uint64 { return 0 }

func (p *kernelPath) ring() virtio.Features {
	const want = featMrgRxbuf | virtio.FeatureIndirectDesc | virtio.FeatureEventIdx
	return want & virtio.Features(p.v.Features())
}

func (p *kernelPath) start(a virtio.Activation) error { return p.q.Start(a) }

func (p *kernelPath) stop() {
	if err := p.q.Stop(); err != nil {
		p.d.metrics.errors.Add(1)
	}
}

func (p *kernelPath) close() error { return p.q.Close() }
