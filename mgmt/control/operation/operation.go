// Package operation keeps work that takes time (AIP-151): in the store, so that it
// survives a restart of control, and in memory with a way to wait for it, and to ask
// for its end.
package operation

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
)

const (
	// Prefix of the names of operations.
	Prefix = "operations/"
	// keep is how long an operation is kept after its end.
	keep = 24 * time.Hour
	// maxKept bounds how many ended operations are kept.
	maxKept = 4096
)

// ErrCancelled is the cause of the end of an Op's context by CancelOperation.
var ErrCancelled = refuse.New(connect.CodeCanceled, refuse.Cancelled, "cancelled")

// A Registry knows all operations.
type Registry struct {
	store *store.Store
	feed  *feed.Feed
	log   *slog.Logger

	kept int // how many ended operations are kept

	settling sync.Mutex // held by Settle; lock order: Op.saving, settling, mu, Op.mu

	mu      sync.Mutex
	ops     map[string]*Op
	newest  uint64         // what the newest identifier begins with
	unsaved map[string]*Op // whose last change the store has not taken
}

// An Op is one operation.
type Op struct {
	r      *Registry
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}

	// saving is held while a change is made and stored, so that the store gets changes
	// in their order. Lock order: saving, then mu.
	saving sync.Mutex

	mu  sync.Mutex
	rec store.Operation // guarded by mu; the ID never changes
}

// Load reads the operations of earlier runs. Those that had not ended are returned too,
// oldest first: who owns their targets has to go on with them, or end them.
func Load(s *store.Store, f *feed.Feed, log *slog.Logger) (*Registry, []*Op, error) {
	r := &Registry{store: s, feed: f, log: log, kept: maxKept, ops: map[string]*Op{}, unsaved: map[string]*Op{}}
	var open []*Op
	err := s.View(func(tx *store.Tx) error {
		return store.Operations.Each(tx, func(rec store.Operation) error {
			op := r.add(rec)
			if !rec.Done {
				open = append(open, op)
			}
			if !rec.Done && rec.Cancelled {
				op.cancel(ErrCancelled)
			}
			if b, err := hex.DecodeString(rec.ID); err == nil && len(b) >= 8 {
				r.newest = max(r.newest, binary.BigEndian.Uint64(b))
			}
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("load operations: %w", err)
	}
	return r, open, nil
}

// newID makes an identifier that sorts after all earlier ones, those of earlier runs
// included, and whatever the clock does: 48 bits of milliseconds and a 16-bit count,
// then chance.
func (r *Registry) newID() string {
	var b [16]byte
	rand.Read(b[8:])
	r.mu.Lock()
	r.newest = max(r.newest+1, uint64(time.Now().UnixMilli())<<16)
	binary.BigEndian.PutUint64(b[:], r.newest)
	r.mu.Unlock()
	return hex.EncodeToString(b[:])
}

// Begin records rec, whose ID, CreateTime and Booted it fills, in the same
// transaction as what also writes.
func (r *Registry) Begin(rec store.Operation, also func(tx *store.Tx, id string) error) (*Op, error) {
	// Else a later run would take up what had ended before this one began.
	if err := r.Settle(); err != nil {
		return nil, err
	}
	rec.ID, rec.CreateTime, rec.Booted = r.newID(), time.Now(), sinceBoot()
	rec.Message = "waiting"
	err := r.store.Update(func(tx *store.Tx) error {
		if err := store.Operations.Put(tx, rec); err != nil {
			return err
		}
		return also(tx, rec.ID)
	})
	if err != nil {
		return nil, err
	}
	op := r.add(rec)
	r.mu.Lock()
	many := len(r.ops) > r.kept+r.kept/4
	r.mu.Unlock()
	if many { // more than the hourly Sweep was made for
		if err := r.Sweep(time.Now()); err != nil {
			r.log.Error("sweep", "error", err)
		}
	}
	return op, nil
}

func (r *Registry) add(rec store.Operation) *Op {
	op := &Op{r: r, rec: rec, done: make(chan struct{})}
	op.ctx, op.cancel = context.WithCancelCause(context.Background())
	if rec.Done {
		op.cancel(nil)
		close(op.done)
	}
	r.mu.Lock()
	r.ops[rec.ID] = op
	r.mu.Unlock()
	r.feed.Put(Prefix+rec.ID, toProto(rec))
	return op
}

// Get returns the operation with that name.
func (r *Registry) Get(name string) (*Op, error) {
	id, ok := strings.CutPrefix(name, Prefix)
	if !ok || id == "" {
		return nil, refuse.Field("name", "is %q: write %sID", name, Prefix)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if op := r.ops[id]; op != nil {
		return op, nil
	}
	return nil, refuse.NotFound("ashlar.v1.Operation", name)
}

// List returns all operations, newest first.
func (r *Registry) List() []*ashlarv1.Operation {
	r.mu.Lock()
	all := make([]*Op, 0, len(r.ops))
	for _, op := range r.ops {
		all = append(all, op)
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *Op) int { return strings.Compare(b.rec.ID, a.rec.ID) })
	out := make([]*ashlarv1.Operation, len(all))
	for i, op := range all {
		out[i] = op.Proto()
	}
	return out
}

// Sweep forgets operations that ended long ago.
func (r *Registry) Sweep(now time.Time) error {
	var ended []store.Operation
	r.mu.Lock()
	for _, op := range r.ops {
		if rec := op.Record(); rec.Done {
			ended = append(ended, rec)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(ended, func(a, b store.Operation) int { return b.EndTime.Compare(a.EndTime) })
	var old []string
	for i, rec := range ended {
		if i >= r.kept || now.Sub(rec.EndTime) > keep {
			old = append(old, rec.ID)
		}
	}
	if len(old) == 0 {
		return nil
	}
	err := r.store.Update(func(tx *store.Tx) error {
		for _, id := range old {
			if err := store.Operations.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget old operations: %w", err)
	}
	r.mu.Lock()
	for _, id := range old {
		delete(r.ops, id)
	}
	r.mu.Unlock()
	for _, id := range old {
		r.feed.Delete(Prefix + id)
	}
	return nil
}

// Record returns what is known about the operation.
func (o *Op) Record() store.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rec
}

// Proto returns the operation as clients see it.
func (o *Op) Proto() *ashlarv1.Operation { return toProto(o.Record()) }

// Context ends when the operation is cancelled (cause ErrCancelled) or has ended.
func (o *Op) Context() context.Context { return o.ctx }

// Done is closed when the operation has ended.
func (o *Op) Done() <-chan struct{} { return o.done }

// Cancel asks the operation to end early. That is stored first: one that is taken up
// again by a later run does not go on.
func (o *Op) Cancel() {
	o.Amend(func(rec *store.Operation) { rec.Cancelled = true })
	o.cancel(ErrCancelled)
}

// Cancelled reports whether Cancel was called before the end.
func (o *Op) Cancelled() bool { return errors.Is(context.Cause(o.ctx), ErrCancelled) }

// FromEarlierBoot reports whether the host has been restarted since the operation
// began.
func (o *Op) FromEarlierBoot() bool { return o.Record().Booted > sinceBoot() }

// Progress says how far the operation is. It is told to watchers, not stored.
func (o *Op) Progress(percent int32, message string) {
	o.update(func(rec *store.Operation) {
		rec.Percent, rec.Message = max(rec.Percent, percent), message
	})
}

// Amend changes the record, and stores it. What has ended stays as it is.
func (o *Op) Amend(f func(*store.Operation)) {
	o.saving.Lock()
	defer o.saving.Unlock()
	if !o.Record().Done {
		o.update(f)
		o.r.save(o)
	}
}

// Finish ends the operation, with err where it failed.
func (o *Op) Finish(err error) {
	o.saving.Lock()
	defer o.saving.Unlock()
	rec := o.update(func(rec *store.Operation) {
		if rec.Done {
			return
		}
		rec.Done, rec.EndTime = true, time.Now()
		if err != nil {
			rec.ErrorCode, rec.Error, rec.Violations = refuse.CodeName(err), refuse.Sentence(err), refuse.Violations(err)
			rec.Message = "failed"
			return
		}
		rec.Percent, rec.Message = 100, "done"
	})
	o.r.save(o)
	o.cancel(nil)
	close(o.done)
	o.r.log.Info("operation ended", "id", rec.ID, "kind", rec.Kind, "target", rec.Target, "code", rec.ErrorCode, "error", rec.Error)
}

func (o *Op) update(f func(*store.Operation)) store.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(&o.rec)
	o.r.feed.Put(Prefix+o.rec.ID, toProto(o.rec))
	return o.rec
}

// save stores the record of op, or has Settle do so later.
func (r *Registry) save(op *Op) {
	r.mu.Lock()
	r.unsaved[op.rec.ID] = op
	r.mu.Unlock()
	if err := r.Settle(); err != nil {
		r.log.Error("operation not stored yet", "id", op.rec.ID, "error", err)
	}
}

// Settle stores what the store has not taken, as on a full disk. With nothing to store it
// does nothing.
func (r *Registry) Settle() error {
	r.settling.Lock()
	defer r.settling.Unlock()
	r.mu.Lock()
	open := r.unsaved
	r.unsaved = map[string]*Op{}
	r.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	err := r.store.Update(func(tx *store.Tx) error {
		for _, op := range open {
			if err := store.Operations.Put(tx, op.Record()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.mu.Lock()
		maps.Copy(r.unsaved, open)
		r.mu.Unlock()
		return fmt.Errorf("store operations: %w", err)
	}
	return nil
}

func toProto(rec store.Operation) *ashlarv1.Operation {
	p := &ashlarv1.Operation{
		Name: Prefix + rec.ID, Kind: rec.Kind, Target: rec.Target, Done: rec.Done,
		ProgressPercent: rec.Percent, Message: rec.Message,
		CreateTime: timestamppb.New(rec.CreateTime),
	}
	if rec.ErrorCode != "" {
		p.Error = &ashlarv1.OperationError{Code: rec.ErrorCode, Message: rec.Error}
		for _, v := range rec.Violations {
			p.Error.Violations = append(p.Error.Violations, &ashlarv1.PreconditionViolation{Type: string(v.Reason), Subject: v.Device, Description: v.Message})
		}
	}
	if !rec.EndTime.IsZero() {
		p.EndTime = timestamppb.New(rec.EndTime)
	}
	return p
}
