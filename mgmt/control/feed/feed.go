// Package feed tells watchers what changes. It holds the present state of every
// public resource and the last changes in a ring: a watcher reads the state once and
// then follows the ring with a cursor, so a slow one costs nothing but its place, and
// when the ring has passed it by it is told so.
package feed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// ringSize is how many changes are remembered.
const ringSize = 2048

// ErrBehind says that changes after the cursor have been forgotten.
var ErrBehind = errors.New("fell behind")

// A Change is one change of one resource. Resource is not to be written to.
type Change struct {
	Seq      uint64
	Name     string // virtualMachines/ID
	Resource proto.Message
	Deleted  bool
	Time     time.Time
}

// Collection is the part of the name before the slash.
func (c Change) Collection() string {
	collection, _, _ := strings.Cut(c.Name, "/")
	return collection
}

// A Feed is the state and the ring.
type Feed struct {
	epoch [8]byte // of this process: cursors of another one mean nothing

	mu    sync.Mutex
	state map[string]Change
	ring  []Change // ring[seq % ringSize]
	last  uint64   // Seq of the newest change; the first is 1
	more  chan struct{}
}

// New makes an empty feed.
func New() *Feed {
	f := &Feed{state: map[string]Change{}, ring: make([]Change, ringSize), more: make(chan struct{})}
	rand.Read(f.epoch[:])
	return f
}

// Put says what the resource called name is now. One that is as it was is no change.
func (f *Feed) Put(name string, m proto.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.state[name]; ok && proto.Equal(old.Resource, m) {
		return
	}
	f.state[name] = f.append(Change{Name: name, Resource: m})
}

// Delete says that the resource called name is no more.
func (f *Feed) Delete(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, ok := f.state[name]
	if !ok {
		return
	}
	delete(f.state, name)
	f.append(Change{Name: name, Resource: old.Resource, Deleted: true})
}

// append gives c the next place. mu is held.
func (f *Feed) append(c Change) Change {
	f.last++
	c.Seq, c.Time = f.last, time.Now()
	f.ring[c.Seq%ringSize] = c
	close(f.more)
	f.more = make(chan struct{})
	return c
}

// Snapshot returns the present state by name, and the cursor after it.
func (f *Feed) Snapshot() ([]Change, uint64) {
	f.mu.Lock()
	all := make([]Change, 0, len(f.state))
	for _, c := range f.state {
		all = append(all, c)
	}
	last := f.last
	f.mu.Unlock()
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	return all, last
}

// Since returns the changes after cursor, at most max, and waits until there is one.
// It returns ErrBehind when some of them have been forgotten.
func (f *Feed) Since(ctx context.Context, cursor uint64, max int) ([]Change, error) {
	for {
		changes, more, err := f.since(cursor, max)
		if err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *Feed) since(cursor uint64, max int) ([]Change, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cursor > f.last || f.last-cursor > ringSize {
		return nil, nil, ErrBehind
	}
	n := min(f.last-cursor, uint64(max))
	changes := make([]Change, 0, n)
	for seq := cursor + 1; seq <= cursor+n; seq++ {
		changes = append(changes, f.ring[seq%ringSize])
	}
	return changes, f.more, nil
}

// Pending returns the changes after cursor without waiting, and whether the cursor
// is still good.
func (f *Feed) Pending(cursor uint64) ([]Change, bool) {
	changes, _, err := f.since(cursor, ringSize)
	return changes, err == nil
}

// Token turns a cursor into a resume token.
func (f *Feed) Token(cursor uint64) string {
	b := binary.BigEndian.AppendUint64(f.epoch[:len(f.epoch):len(f.epoch)], cursor)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Cursor reads a resume token. well is whether it has the form of one; ok is
// whether it is of this process.
func (f *Feed) Cursor(token string) (cursor uint64, ok, well bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != 16 {
		return 0, false, false
	}
	return binary.BigEndian.Uint64(b[8:]), [8]byte(b[:8]) == f.epoch, true
}
