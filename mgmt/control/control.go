// Package control is the control domain of a host, put together: the store, the link to
// core, images, virtual machines, consoles and the API on top of them. It follows
// mgmt/core/hostcall on one side and ashlar.v1 on the other.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/control/console"
	"github.com/ashlar-hv/ashlar/mgmt/control/device"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/hugepage"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/service"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/control/tunnel"
	"github.com/ashlar-hv/ashlar/mgmt/control/vf"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// readyTimeout is how long the API waits for core before it opens all the same.
	readyTimeout = 5 * time.Second
	// sweepEvery is how often old operations and requests are forgotten.
	sweepEvery = time.Hour
	// settleEvery is how often operations are stored that the store has not taken, as on a
	// full disk.
	settleEvery = 10 * time.Second
)

// A Control is a control domain.
type Control struct {
	log      *slog.Logger
	store    *store.Store
	link     *link.Link
	images   *image.Manager
	machines *machine.Manager
	ops      *operation.Registry
	devices  *device.Manager
	pools    *hugepage.Manager
	vfs      *vf.Manager
	api      *service.API

	// onDisk has the newest list of images for reconcile, which is slow.
	onDisk chan []hostcall.ImageStatus
}

// Open opens the store, and reads all that was going on. core is the path of core's
// socket: it need not be there yet.
func Open(storePath, core string, log *slog.Logger) (*Control, error) {
	s, err := store.Open(storePath)
	if err != nil {
		return nil, err
	}
	c := &Control{log: log, store: s, link: link.New(core, log), onDisk: make(chan []hostcall.ImageStatus, 1)}
	if err := c.load(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open control: %w", err)
	}
	return c, nil
}

func (c *Control) load() (err error) {
	f := feed.New()
	ops, open, err := operation.Load(c.store, f, c.log)
	if err != nil {
		return err
	}
	if c.images, err = image.Load(c.store, c.link, f, c.log); err != nil {
		return err
	}
	if c.machines, err = machine.Load(c.store, c.link, f, c.images, ops, open, c.log); err != nil {
		return err
	}
	if c.pools, err = hugepage.Load(c.store, c.link, c.log); err != nil {
		return err
	}
	c.ops, c.devices = ops, device.New(c.link, f, c.log)
	if c.vfs, err = vf.Load(c.store, c.link, c.devices, c.log); err != nil {
		return err
	}
	c.machines.SetDevices(c.devices.Get)
	c.machines.SetLinks(c.devices.GetLink)
	c.devices.SetOwners(c.machines.NameOf)
	c.api = &service.API{
		Link: c.link, Feed: f, Images: c.images, Machines: c.machines, Operations: ops,
		Consoles: console.New(c.link, c.machines), Tunnels: tunnel.New(c.link, c.machines), Log: c.log,
		Devices: c.devices, Hugepages: c.pools, VFs: c.vfs,
	}
	return nil
}

// Broken is closed once the store cannot be read any more (store.Store.Broken).
func (c *Control) Broken() <-chan struct{} { return c.store.Broken() }

// Close closes the store. Run must have ended.
func (c *Control) Close() error { return c.store.Close() }

// Handler serves the API.
func (c *Control) Handler() http.Handler { return service.WithDeadlines(c.api.Handler()) }

// Run works until ctx ends.
func (c *Control) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.machines.Run(ctx) })
	wg.Go(func() { c.link.Run(ctx, c) })
	wg.Go(func() { c.reconcileImages(ctx) })
	wg.Go(func() { c.devices.Run(ctx) })
	wg.Go(func() { c.pools.Run(ctx) })
	wg.Go(func() { c.vfs.Run(ctx) })
	wg.Go(func() { c.sweep(ctx) })
}

// WaitReady waits until core has told what runs and has made the pools of huge pages and the
// virtual functions that guests may want, or has been given the time to.
func (c *Control) WaitReady(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := c.link.WaitUp(ctx); err != nil {
		c.log.Warn("core has not answered yet: the API opens without it")
	}
	for _, applied := range []<-chan struct{}{c.pools.Applied(), c.vfs.Applied()} {
		select {
		case <-applied:
		case <-ctx.Done():
		}
	}
}

// Synced implements link.Handler.
func (c *Control) Synced(guests []hostcall.GuestStatus, images []hostcall.ImageStatus) {
	c.machines.Synced(guests)
	c.pools.Connected()
	if images == nil { // core cannot tell
		return
	}
	select { // the newest list alone matters
	case <-c.onDisk:
	default:
	}
	c.onDisk <- images
}

// Changed implements link.Handler.
func (c *Control) Changed(guest hostcall.GuestStatus) { c.machines.Changed(guest) }

// PCIChanged implements link.Handler.
func (c *Control) PCIChanged() { c.devices.Changed() }

// LinksChanged implements link.Handler.
func (c *Control) LinksChanged() { c.devices.LinksChanged() }

func (c *Control) reconcileImages(ctx context.Context) {
	for {
		select {
		case have := <-c.onDisk:
			c.images.Reconcile(ctx, have)
		case <-ctx.Done():
			return
		}
	}
}

func (c *Control) sweep(ctx context.Context) {
	tick, settle := time.NewTicker(sweepEvery), time.NewTicker(settleEvery)
	defer tick.Stop()
	defer settle.Stop()
	for {
		now := time.Now()
		if err := c.ops.Sweep(now); err != nil {
			c.log.Error("sweep", "error", err)
		}
		if err := c.machines.Sweep(now); err != nil {
			c.log.Error("sweep", "error", err)
		}
		for again := true; again; {
			select {
			case <-tick.C:
				again = false
			case <-settle.C:
				if err := c.ops.Settle(); err != nil {
					c.log.Error("operations not stored yet", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
