package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

// watchBatch is how many changes are taken from the feed at once.
const watchBatch = 64

var collections = []string{"virtualMachines", "images", "operations", "pciDevices", "links"}

type watchService struct{ *API }

// Watch implements WatchService.
func (s watchService) Watch(ctx context.Context, req *connect.Request[ashlarv1.WatchRequest], stream *connect.ServerStream[ashlarv1.WatchResponse]) error {
	for i, c := range req.Msg.Collections {
		if !slices.Contains(collections, c) {
			return refuse.Field(fmt.Sprintf("collections[%d]", i), "is %q: virtualMachines, images, operations, pciDevices or links", c)
		}
	}
	w := &watcher{feed: s.Feed, want: req.Msg.Collections, stream: stream}
	if err := w.begin(req.Msg.ResumeToken); err != nil {
		return err
	}
	for {
		changes, err := s.Feed.Since(ctx, w.cursor, watchBatch)
		switch {
		case errors.Is(err, feed.ErrBehind):
			return refuse.New(connect.CodeAborted, refuse.WatcherTooSlow, "changes came faster than you read them: watch again from the start")
		case err != nil:
			return refuse.Core(err, "", nil)
		}
		if err := w.send(changes); err != nil {
			return err
		}
	}
}

// A watcher is one call of Watch.
type watcher struct {
	feed   *feed.Feed
	want   []string
	stream interface {
		Send(*ashlarv1.WatchResponse) error
	}
	cursor uint64
}

// begin sends what goes before the changes to come.
func (w *watcher) begin(token string) error {
	if token == "" {
		return w.snapshot(false)
	}
	cursor, ok, well := w.feed.Cursor(token)
	if !well {
		return refuse.Field("resume_token", "is not one that Watch has given: watch without one")
	}
	var missed []feed.Change
	if ok {
		missed, ok = w.feed.Pending(cursor)
	}
	if !ok {
		return w.snapshot(true)
	}
	w.cursor = cursor
	if err := w.send(missed); err != nil {
		return err
	}
	return w.synced()
}

// snapshot sends the present state.
func (w *watcher) snapshot(reset bool) error {
	if reset {
		if err := w.stream.Send(&ashlarv1.WatchResponse{Reset_: true, Time: timestamppb.Now()}); err != nil {
			return err
		}
	}
	state, last := w.feed.Snapshot()
	for _, c := range state {
		if w.wanted(c) {
			if err := w.stream.Send(toResponse(c)); err != nil {
				return err
			}
		}
	}
	w.cursor = last
	return w.synced()
}

func (w *watcher) synced() error {
	return w.stream.Send(&ashlarv1.WatchResponse{Synced: true, ResumeToken: w.feed.Token(w.cursor), Time: timestamppb.Now()})
}

func (w *watcher) wanted(c feed.Change) bool {
	return len(w.want) == 0 || slices.Contains(w.want, c.Collection())
}

func (w *watcher) send(changes []feed.Change) error {
	for _, c := range changes {
		if w.wanted(c) {
			r := toResponse(c)
			r.ResumeToken = w.feed.Token(c.Seq)
			if err := w.stream.Send(r); err != nil {
				return err
			}
		}
		w.cursor = c.Seq
	}
	return nil
}

func toResponse(c feed.Change) *ashlarv1.WatchResponse {
	r := &ashlarv1.WatchResponse{Kind: ashlarv1.WatchResponse_KIND_PUT, Time: timestamppb.New(c.Time)}
	if c.Deleted {
		r.Kind = ashlarv1.WatchResponse_KIND_DELETED
	}
	switch m := c.Resource.(type) {
	case *ashlarv1.VirtualMachine:
		r.Resource = &ashlarv1.WatchResponse_VirtualMachine{VirtualMachine: m}
	case *ashlarv1.Image:
		r.Resource = &ashlarv1.WatchResponse_Image{Image: m}
	case *ashlarv1.Operation:
		r.Resource = &ashlarv1.WatchResponse_Operation{Operation: m}
	case *ashlarv1.PciDevice:
		r.Resource = &ashlarv1.WatchResponse_PciDevice{PciDevice: m}
	case *ashlarv1.Link:
		r.Resource = &ashlarv1.WatchResponse_Link{Link: m}
	}
	return r
}
