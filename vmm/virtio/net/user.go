package net

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// A userPath moves packets with two goroutines, for hosts without vhost-net.
type userPath struct {
	d      *Device
	tap    *os.File // the same tap, through the runtime's poller
	rx, tx *worker.Worker
}

func newUserPath(d *Device, tap *os.File) (*userPath, error) {
	fd, err := unix.FcntlInt(tap.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate tap: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make tap non-blocking: %w", err), unix.Close(fd))
	}
	p := &userPath{d: d, tap: os.NewFile(uintptr(fd), "tap")}
	if p.rx, err = worker.New("net-rx-kick"); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if p.tx, err = worker.New("net-tx-kick"); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *userPath) queues() []virtio.QueueSpec {
	return []virtio.QueueSpec{
		receiveQueue:  {MaxSize: queueSize, Kick: p.rx.Kick()},
		transmitQueue: {MaxSize: queueSize, Kick: p.tx.Kick()},
	}
}

func (p *userPath) kickCount() uint64 { return p.rx.Kicks() + p.tx.Kicks() }

func (p *userPath) ring() virtio.Features {
	return featMrgRxbuf | virtio.OrderedRing
}

func (p *userPath) start(a virtio.Activation) error {
	if err := p.tap.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("tap: %w", err)
	}
	if q := a.Queues[receiveQueue]; q != nil {
		if err := p.rx.Start(a, q, p.receive); err != nil {
			return fmt.Errorf("receive queue: %w", err)
		}
	}
	if q := a.Queues[transmitQueue]; q != nil {
		if err := p.tx.Start(a, q, p.transmit); err != nil {
			p.stop()
			return fmt.Errorf("transmit queue: %w", err)
		}
	}
	return nil
}

func (p *userPath) stop() {
	// A deadline in the past wakes whoever waits for the tap.
	if err := p.tap.SetDeadline(time.Unix(1, 0)); err != nil {
		p.d.metrics.errors.Add(1)
	}
	p.rx.Stop()
	p.tx.Stop()
}

func (p *userPath) close() error {
	errs := []error{p.tap.Close()}
	for _, w := range []*worker.Worker{p.rx, p.tx} {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	return errors.Join(errs...)
}
