package control

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/service"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// A Closed is a control domain without its store, which cannot be opened: it says so to
// every client, and tells of the host what core knows.
type Closed struct {
	link *link.Link
	api  *service.API
}

// NewClosed returns a Closed for the reason why. core is the path of core's socket.
func NewClosed(core string, why error, log *slog.Logger) *Closed {
	l := link.New(core, log)
	return &Closed{link: l, api: &service.API{Link: l, Log: log, Closed: why}}
}

// Handler serves the API.
func (c *Closed) Handler() http.Handler { return service.WithDeadlines(c.api.Handler()) }

// Run works until ctx ends.
func (c *Closed) Run(ctx context.Context) { c.link.Run(ctx, c) }

// Synced implements link.Handler.
func (c *Closed) Synced([]hostcall.GuestStatus, []hostcall.ImageStatus) {}

// Changed implements link.Handler.
func (c *Closed) Changed(hostcall.GuestStatus) {}

// PCIChanged implements link.Handler.
func (c *Closed) PCIChanged() {}

// LinksChanged implements link.Handler.
func (c *Closed) LinksChanged() {}
