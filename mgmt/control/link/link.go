// Package link is control's connection to core (mgmt/core/hostcall). It connects
// again by itself for as long as it runs; a call made while there is no connection,
// or cut off by its end, fails with ErrDown.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// ErrDown says that core cannot be asked now. Where the connection ended during a
// call, the call may have been carried out or not.
var ErrDown = errors.New("core is restarting, try again")

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 3 * time.Second
	// sendTimeout is how long core may leave a message unread before it counts as gone.
	sendTimeout = 20 * time.Second
	// listTimeout bounds the calls that follow a connect.
	listTimeout = 30 * time.Second
	// relist is how often the state of all guests is read anew, in case an event
	// went missing.
	relist = time.Minute
)

// slow are the methods that may take long, by what takes it, and how many calls of each
// group are under way at once. core carries out 20 calls of one connection and reads no
// more before one of them has ended: what is left is for the quick ones.
var slow = []struct {
	most    int
	methods []hostcall.Method
}{
	{3, []hostcall.Method{hostcall.GuestCreate, hostcall.GuestDelete, hostcall.ImageSeal, hostcall.ImageDelete}},
	{6, []hostcall.Method{hostcall.GuestStart, hostcall.GuestPause, hostcall.GuestResume}},
	{4, []hostcall.Method{hostcall.GuestKill, hostcall.GuestReset}},
	{4, []hostcall.Method{hostcall.GuestConnect}},
	{1, []hostcall.Method{hostcall.HugepagesSet}},
	{1, []hostcall.Method{hostcall.VFsSet}},
	{2, []hostcall.Method{hostcall.GuestAttachDevice, hostcall.GuestCheckDevices}},
}

// A Handler is told what core has to say. Its methods are called one at a time,
// and must not wait for a call of the Link.
type Handler interface {
	// Synced brings all guests and images, after each connect and now and then. images is
	// nil where core cannot tell, as its disk fails.
	Synced(guests []hostcall.GuestStatus, images []hostcall.ImageStatus)
	// Changed brings one guest.
	Changed(guest hostcall.GuestStatus)
	// PCIChanged says that PCI devices may have come, gone or changed: after each
	// connect, and when core says so. It may be called beside the others.
	PCIChanged()
	// LinksChanged says the same of the host's links.
	LinksChanged()
}

// A Link is the connection to core. Run runs it; Call and Do may be called by many
// goroutines at once.
type Link struct {
	path    string
	log     *slog.Logger
	handler Handler

	// deliver keeps calls of handler in the order of what core said.
	deliver sync.Mutex
	// fresh are the guests that events told about since a list was asked for: the
	// list may be older. nil while no list is under way. Guarded by deliver.
	fresh map[string]hostcall.GuestStatus
	// listing lets one list run at a time; a channel so that waiting can be ended.
	listing chan struct{}
	// working has a channel for each slow method, which holds one per call under way.
	working map[hostcall.Method]chan struct{}

	mu      sync.Mutex
	conn    *seqpacket.Conn         // nil while down
	seq     uint64                  // of the last call
	pending map[uint64]chan<- reply // calls under way on conn
	changed chan struct{}           // closed when synced changes
	synced  bool                    // handler has been told the state of this conn
}

type reply struct {
	msg   hostcall.Message
	files []*os.File
	err   error
}

// New makes a Link to the socket at path.
func New(path string, log *slog.Logger) *Link {
	l := &Link{
		path: path, log: log, listing: make(chan struct{}, 1), working: map[hostcall.Method]chan struct{}{},
		pending: map[uint64]chan<- reply{}, changed: make(chan struct{}),
	}
	for _, group := range slow {
		working := make(chan struct{}, group.most)
		for _, m := range group.methods {
			l.working[m] = working
		}
	}
	return l
}

// Run keeps the connection until ctx ends.
func (l *Link) Run(ctx context.Context, h Handler) {
	l.handler = h
	wait := backoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 2*backoffMax {
			wait = backoffMin
		}
		l.log.Warn("core is not there", "error", err, "again_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, backoffMax)
	}
}

// once runs one connection to its end.
func (l *Link) once(ctx context.Context) error {
	conn, err := seqpacket.Dial(l.path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	l.mu.Lock()
	l.conn = conn
	l.mu.Unlock()
	defer l.drop(conn)

	wg.Go(func() {
		if err := l.keepSynced(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("core does not tell its state", "error", err)
			_ = conn.Close()
		}
	})
	return l.receive(conn)
}

// drop ends what still waits for conn.
func (l *Link) drop(conn *seqpacket.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	pending := l.pending
	l.conn, l.pending = nil, map[uint64]chan<- reply{}
	l.setSynced(false)
	l.mu.Unlock()
	for _, ch := range pending {
		ch <- reply{err: ErrDown}
	}
}

// setSynced is called with mu held.
func (l *Link) setSynced(v bool) {
	if l.synced != v {
		l.synced = v
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// receive hands out messages until conn ends.
func (l *Link) receive(conn *seqpacket.Conn) error {
	for {
		var msg hostcall.Message
		files, err := conn.Recv(&msg)
		if err != nil {
			return err
		}
		if msg.Seq == 0 {
			seqpacket.CloseAll(files)
			if msg.Event != nil && msg.Event.Guest != nil {
				l.event(*msg.Event.Guest)
			}
			if msg.Event != nil && msg.Event.PCI {
				l.handler.PCIChanged()
			}
			if msg.Event != nil && msg.Event.Links {
				l.handler.LinksChanged()
			}
			continue
		}
		l.mu.Lock()
		ch := l.pending[msg.Seq]
		delete(l.pending, msg.Seq)
		l.mu.Unlock()
		if ch == nil { // nobody waits for it any more
			seqpacket.CloseAll(files)
			continue
		}
		ch <- reply{msg: msg, files: files}
	}
}

func (l *Link) event(g hostcall.GuestStatus) {
	l.deliver.Lock()
	defer l.deliver.Unlock()
	if l.fresh != nil {
		l.fresh[g.ID] = g
	}
	l.handler.Changed(g)
}

// keepSynced subscribes, and lists again and again.
func (l *Link) keepSynced(ctx context.Context) error {
	first, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if _, err := l.Do(first, hostcall.Call{Method: hostcall.Subscribe}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if err := l.Sync(first); err != nil {
		return err
	}
	l.mu.Lock()
	if l.conn != nil {
		l.setSynced(true)
	}
	l.mu.Unlock()
	l.log.Info("connected to core")
	l.handler.PCIChanged()
	l.handler.LinksChanged()
	tick := time.NewTicker(relist)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			again, cancel := context.WithTimeout(ctx, listTimeout)
			err := l.Sync(again)
			cancel()
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Sync asks core for all guests and images and tells the Handler. When it returns, the
// Handler knows what was so when Sync was called, or later.
func (l *Link) Sync(ctx context.Context) error {
	select {
	case l.listing <- struct{}{}:
		defer func() { <-l.listing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	l.deliver.Lock()
	l.fresh = map[string]hostcall.GuestStatus{}
	l.deliver.Unlock()
	guests, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestList})
	var images hostcall.Message
	known := err == nil
	if known {
		images, err = l.Do(ctx, hostcall.Call{Method: hostcall.ImageList})
		var refused *hostcall.Error
		if errors.As(err, &refused) {
			l.log.Error("core cannot list images", "error", err)
			known, err = false, nil
		}
	}
	if known && images.Images == nil {
		images.Images = []hostcall.ImageStatus{}
	}
	l.deliver.Lock()
	defer l.deliver.Unlock()
	fresh := l.fresh
	l.fresh = nil
	if err != nil {
		return fmt.Errorf("list guests and images: %w", err)
	}
	for i, g := range guests.Guests {
		if newer, ok := fresh[g.ID]; ok {
			guests.Guests[i] = newer
		}
	}
	l.handler.Synced(guests.Guests, images.Images)
	return nil
}

// Up reports whether core is connected and its state is known.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced
}

// WaitUp returns nil when core is connected and its state is known, or ErrDown when
// ctx ends first.
func (l *Link) WaitUp(ctx context.Context) error {
	for {
		l.mu.Lock()
		synced, changed := l.synced, l.changed
		l.mu.Unlock()
		if synced {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ErrDown
		}
	}
}

// Do makes a call that brings no descriptors.
func (l *Link) Do(ctx context.Context, c hostcall.Call) (hostcall.Message, error) {
	msg, files, err := l.call(ctx, c)
	seqpacket.CloseAll(files)
	return msg, err
}

// File makes a call that brings one descriptor, which is the caller's.
func (l *Link) File(ctx context.Context, c hostcall.Call) (*os.File, error) {
	_, files, err := l.call(ctx, c)
	if err == nil && len(files) == 1 {
		return files[0], nil
	}
	seqpacket.CloseAll(files)
	if err == nil {
		err = &hostcall.Error{Code: hostcall.Internal, Message: fmt.Sprintf("core answered %s with %d descriptors, not 1", c.Method, len(files))}
	}
	return nil, err
}

// call sends c and waits for the reply. The error is a *hostcall.Error where core
// refused.
func (l *Link) call(ctx context.Context, c hostcall.Call) (hostcall.Message, []*os.File, error) {
	if working := l.working[c.Method]; working != nil {
		select {
		case working <- struct{}{}:
			defer func() { <-working }()
		case <-ctx.Done():
			return hostcall.Message{}, nil, ctx.Err()
		}
	}
	ch := make(chan reply, 1)
	l.mu.Lock()
	conn := l.conn
	if conn == nil {
		l.mu.Unlock()
		return hostcall.Message{}, nil, ErrDown
	}
	l.seq++
	c.Seq = l.seq
	l.pending[c.Seq] = ch
	l.mu.Unlock()

	stuck := time.AfterFunc(sendTimeout, func() { _ = conn.Close() })
	err := conn.Send(c)
	stuck.Stop()
	if errors.Is(err, seqpacket.ErrTooLarge) {
		l.forget(c.Seq, ch)
		return hostcall.Message{}, nil, &hostcall.Error{Code: hostcall.InvalidArgument, Message: "the request is too large"}
	}
	if err != nil {
		_ = conn.Close()
		l.forget(c.Seq, ch)
		return hostcall.Message{}, nil, ErrDown
	}
	select {
	case r := <-ch:
		if r.err == nil && r.msg.Error != nil {
			seqpacket.CloseAll(r.files)
			return r.msg, nil, r.msg.Error
		}
		return r.msg, r.files, r.err
	case <-ctx.Done():
		l.forget(c.Seq, ch)
		return hostcall.Message{}, nil, ctx.Err()
	}
}

// forget gives up waiting for a reply, and closes what it brings if it comes first.
func (l *Link) forget(seq uint64, ch <-chan reply) {
	l.mu.Lock()
	_, waiting := l.pending[seq]
	delete(l.pending, seq)
	l.mu.Unlock()
	if !waiting { // taken out by receive or drop, which send just after
		go func() { seqpacket.CloseAll((<-ch).files) }()
	}
}
