// Package store keeps what control has to know after a restart: one bbolt file
// with a bucket per kind of resource and a schema version. Records are JSON
// documents; everything that belongs together is written in one transaction.
//
// A store that cannot be read is refused and left as it is: nothing is moved,
// emptied or repaired behind the operator's back, and guests keep running.
package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Schema is the version of the layout written here.
const Schema = 1

// lockTimeout bounds the wait for another process that holds the file.
const lockTimeout = 3 * time.Second

var (
	// ErrDamaged says that the file is no readable store.
	ErrDamaged = errors.New("damaged")
	// ErrNewer says that a newer version of Ashlar has written the file.
	ErrNewer = errors.New("written by a newer version")
	// ErrBusy says that another process holds the file.
	ErrBusy = errors.New("in use by another process")
)

var (
	metaBucket = []byte("meta")
	schemaKey  = []byte("schema")
)

// A Store is an open store file. Its methods may be called at any time by any
// goroutine; Update runs one at a time.
type Store struct {
	db    *bbolt.DB
	guard guard
}

// A Tx is a transaction: what its tables read is consistent, what they write
// is there as a whole or not at all.
type Tx struct {
	tx *bbolt.Tx
}

// Open opens or makes the store at path, and reads all of it once, so that damage
// shows here and not later.
func Open(path string) (*Store, error) {
	s := &Store{guard: guard{broken: make(chan struct{})}}
	db, err := s.openFile(path)
	if err != nil {
		return nil, explain(path, err)
	}
	s.db = db
	if err := s.prepare(); err != nil {
		_ = db.Close()
		return nil, explain(path, err)
	}
	return s, nil
}

// explain says what err means for the operator.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("open store %s: %w: boot the image that wrote it, or a later one", path, err)
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open store %s: %w: end the other control first", path, ErrBusy)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("open store %s: %w; it is left untouched and guests keep running: copy it away, then put back a good copy, or remove it to start with an empty store (disks and images stay on the data disk)", path, err)
	default:
		return fmt.Errorf("open store %s: %w", path, err)
	}
}

func (s *Store) openFile(path string) (db *bbolt.DB, err error) {
	defer catch(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	open := func(path string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(path, flag, mode)
		if err == nil {
			s.guard.file = f
			s.makeRoom(0)
		}
		return f, err
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, PreLoadFreelist: true, OpenFile: open})
	switch {
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrInvalidMapping):
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return db, err
}

// catch turns a panic of bbolt, or a fault in its mapping of the file, into
// ErrDamaged.
func catch(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// prepare checks the file and brings it to Schema.
func (s *Store) prepare() (err error) {
	defer catch(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	current, err := s.check()
	if err != nil || current {
		return err
	}
	return s.Update(func(tx *Tx) error {
		for _, name := range append(buckets[:len(buckets):len(buckets)], metaBucket) {
			if _, err := tx.tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.tx.Bucket(metaBucket).Put(schemaKey, binary.BigEndian.AppendUint64(nil, Schema))
	})
}

// check refuses what Schema cannot stand for. current is whether the file is of just
// that schema.
func (s *Store) check() (current bool, err error) {
	info, err := os.Stat(s.db.Path())
	if err != nil {
		return false, err
	}
	err = s.View(func(tx *Tx) error {
		if info.Size() < tx.tx.Size() {
			return fmt.Errorf("%w: %d bytes of %d are there", ErrDamaged, info.Size(), tx.tx.Size())
		}
		meta := tx.tx.Bucket(metaBucket)
		if meta == nil {
			return nil // new
		}
		v := meta.Get(schemaKey)
		if len(v) != 8 {
			return fmt.Errorf("%w: no schema version", ErrDamaged)
		}
		if n := binary.BigEndian.Uint64(v); n > Schema {
			return fmt.Errorf("%w: schema %d, this version knows up to %d", ErrNewer, n, Schema)
		}
		current = true
		for _, name := range buckets {
			current = current && tx.tx.Bucket(name) != nil
		}
		if err := tx.readAll(); err != nil {
			return err
		}
		// bbolt checks in a goroutine of its own, which nobody guards against faults:
		// therefore last.
		for err := range tx.tx.Check() {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil
	})
	return current && err == nil, err
}

// readAll decodes every record once.
func (tx *Tx) readAll() error {
	return errors.Join(
		VMs.Each(tx, func(VM) error { return nil }),
		Images.Each(tx, func(Image) error { return nil }),
		Operations.Each(tx, func(Operation) error { return nil }),
		Requests.Each(tx, func(Request) error { return nil }),
		Hugepages.Each(tx, func(Hugepage) error { return nil }),
	)
}

// Close closes the file.
func (s *Store) Close() error {
	select {
	case <-s.guard.broken: // a transaction that has faulted holds its locks
		return nil
	default:
		return s.db.Close()
	}
}

// View runs f in a transaction that reads. Without f's fault it fails with ErrDisk alone.
func (s *Store) View(f func(*Tx) error) error {
	return s.do(func(fn func(*Tx) error) error {
		return s.db.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
	}, f)
}

// Update runs f in a transaction that writes, and returns when it is on disk. An
// error of f, ErrFull and ErrDisk leave everything as it was.
func (s *Store) Update(f func(*Tx) error) error {
	var used int64
	err := s.do(func(fn func(*Tx) error) error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			defer func() { used = tx.Size() }()
			return fn(&Tx{tx})
		})
	}, f)
	if err == nil {
		s.makeRoom(used)
	}
	return err
}

// A Table is a bucket of records of one kind.
type Table[T any] struct {
	bucket []byte
	key    func(T) string
}

// Put writes v under its key.
func (t Table[T]) Put(tx *Tx, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store %s %s: %w", t.bucket, t.key(v), err)
	}
	if err := tx.tx.Bucket(t.bucket).Put([]byte(t.key(v)), b); err != nil {
		return fmt.Errorf("store %s %s: %w", t.bucket, t.key(v), err)
	}
	return nil
}

// Get returns the record under key, and whether there is one.
func (t Table[T]) Get(tx *Tx, key string) (v T, ok bool, err error) {
	b := tx.tx.Bucket(t.bucket).Get([]byte(key))
	if b == nil {
		return v, false, nil
	}
	v, err = t.decode(key, b)
	return v, err == nil, err
}

// Delete removes the record under key, if there is one.
func (t Table[T]) Delete(tx *Tx, key string) error {
	if err := tx.tx.Bucket(t.bucket).Delete([]byte(key)); err != nil {
		return fmt.Errorf("store: delete %s %s: %w", t.bucket, key, err)
	}
	return nil
}

// Each calls f with every record, in the order of their keys. f must not write
// to the table.
func (t Table[T]) Each(tx *Tx, f func(T) error) error {
	b := tx.tx.Bucket(t.bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, data []byte) error {
		v, err := t.decode(string(k), data)
		if err != nil {
			return err
		}
		return f(v)
	})
}

func (t Table[T]) decode(key string, b []byte) (v T, err error) {
	if err := json.Unmarshal(b, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %s %s: %w", ErrDamaged, t.bucket, key, err)
	}
	return v, nil
}
