// Package folder keeps what a guest has on disk: a folder per guest with its
// disks (`disk-N` by their numbers, raw), its console log and the addresses of its NICs.
//
// A guest's folder is made whole or not at all: under another name first,
// everything synced, then renamed.
package folder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

const (
	tempPrefix = ".new-"
	deadPrefix = ".dead-"
	diskPrefix = "disk-"
	logName    = "console.log"
	oldLogName = "console.log.old"
	newLogName = "console.log.new" // of a start that may still fail
	nicsName   = "nics.json"

	sector = 512
	// growUnit is what the new size of a disk is a multiple of: whatever file system it
	// lies on takes requests without the page cache up to its end then.
	growUnit = 4096

	// MaxDisks bounds the disks of a guest.
	MaxDisks = hostcall.MaxDisks
	// MaxGuests bounds the guests, so that a list fits into one message.
	MaxGuests = 128
)

// A Store is a folder of guests' folders. For one guest the caller takes turns.
type Store struct {
	dir    string
	images *image.Store
}

// An Interface is the address that a NIC has for as long as the guest exists.
type Interface struct {
	MAC     string `json:"mac"`
	Network string `json:"network"`
	Address string `json:"address"`
	// Number is the NIC's.
	Number int `json:"number,omitempty"`
}

// Open returns the store in dir, which it makes where it is missing, with
// disks cloned from images. What a power cut left half done is removed. Where that fails
// the store is there beside the error.
func Open(dir string, images *image.Store) (*Store, error) {
	s := &Store{dir, images}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, fmt.Errorf("open guest store: %w", err)
	}
	for _, remain := range []string{tempPrefix + "*", deadPrefix + "*", "*/" + diskPrefix + "*" + halfSuffix} {
		remains, err := filepath.Glob(filepath.Join(dir, remain))
		if err != nil {
			return s, fmt.Errorf("open guest store: %w", err)
		}
		for _, r := range remains {
			if err := os.RemoveAll(r); err != nil {
				return s, fmt.Errorf("open guest store: remove remains: %w", err)
			}
		}
	}
	return s, nil
}

func (s *Store) path(id string, name ...string) string {
	return filepath.Join(append([]string{s.dir, id}, name...)...)
}

// Create makes the guest id with disks.
func (s *Store) Create(id string, disks []hostcall.Disk) error {
	if len(disks) > MaxDisks {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "disks",
			Message: fmt.Sprintf("A guest has at most %d disks, not %d.", MaxDisks, len(disks))}
	}
	if s.Exists(id) {
		return &hostcall.Error{Code: hostcall.AlreadyExists, Field: "id",
			Message: fmt.Sprintf("There is a guest %s already: delete it or choose another identifier.", id)}
	}
	ids, err := s.List()
	if err != nil {
		return err
	}
	if len(ids) >= MaxGuests {
		return &hostcall.Error{Code: hostcall.ResourceExhausted,
			Message: fmt.Sprintf("The host has its %d guests: delete one that is not needed.", MaxGuests)}
	}
	temp := s.path(tempPrefix + id)
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("create guest: %w", err)
	}
	if err := s.fill(temp, disks); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.Rename(temp, s.path(id)); err != nil {
		return errors.Join(fmt.Errorf("create guest: %w", err), os.RemoveAll(temp))
	}
	return image.SyncDir(s.dir)
}

// fill makes the disks in dir, which is new.
func (s *Store) fill(dir string, disks []hostcall.Disk) error {
	var grown int64 // bytes that may be written besides what is there
	for i, d := range disks {
		n, err := s.makeDisk(filepath.Join(dir, diskPrefix+strconv.Itoa(i)), d, i, grown)
		if err != nil {
			return err
		}
		grown += n
	}
	return image.SyncDir(dir)
}

// makeDisk makes one disk file and returns by how many bytes it may still
// grow. The disks before it may grow by before.
func (s *Store) makeDisk(path string, d hostcall.Disk, i int, before int64) (grows int64, err error) {
	if d.Size < 0 || d.Size > image.MaxSize || d.Size%sector != 0 || d.Size == 0 && d.Image == "" {
		return 0, &hostcall.Error{Code: hostcall.InvalidArgument, Field: diskField(i, "size"),
			Message: fmt.Sprintf("A disk has a multiple of %d bytes, at most %d, not %d.", sector, int64(image.MaxSize), d.Size)}
	}
	size, has := d.Size, int64(0)
	var from *os.File
	if d.Image != "" {
		if from, err = s.images.OpenSealed(d.Image, diskField(i, "image")); err != nil {
			return 0, err
		}
		defer from.Close()
		info, err := from.Stat()
		if err != nil {
			return 0, fmt.Errorf("create disk %d: %w", i, err)
		}
		has = info.Size()
		if size == 0 {
			size = (has + sector - 1) / sector * sector
		}
		if size < has {
			return 0, &hostcall.Error{Code: hostcall.InvalidArgument, Field: diskField(i, "size"),
				Message: fmt.Sprintf("The image has %d bytes: the disk cannot be smaller, %d were asked for.", has, size)}
		}
	}
	if err := image.CheckFree(s.dir, before+size-has, diskField(i, "size")); err != nil {
		return 0, err
	}
	if err := writeDisk(path, from, size); err != nil {
		return 0, fmt.Errorf("create disk %d: %w", i, err)
	}
	return size - has, nil
}

func writeDisk(path string, from *os.File, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if from != nil {
		err = image.Clone(f, from)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func diskField(i int, name string) string { return fmt.Sprintf("disks[%d].%s", i, name) }

// Exists reports whether there is a guest id.
func (s *Store) Exists(id string) bool {
	_, err := os.Lstat(s.path(id))
	return err == nil
}

// List returns the identifiers of all guests.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list guests: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if hostcall.ValidID(e.Name()) && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Delete removes the guest id and its disks.
func (s *Store) Delete(id string) error {
	if !s.Exists(id) {
		return NotFound(id)
	}
	// The guest is gone with the renaming; the rest may be finished later.
	dead := s.path(deadPrefix + id)
	err := os.Rename(s.path(id), dead)
	if errors.Is(err, unix.ENOSPC) {
		// XFS without a free block has no room for another name, but can remove. Where that
		// is cut off, control asks for it again.
		dead, err = s.path(id), nil
	}
	if err != nil {
		return fmt.Errorf("delete guest: %w", err)
	}
	if err := errors.Join(image.SyncDir(s.dir), os.RemoveAll(dead)); err != nil {
		return fmt.Errorf("delete guest: %w", err)
	}
	return nil
}

// OpenDisks opens the disks of the guest id for reading and writing, without
// the page cache where the file system can (O_DIRECT), in the order of numbers. sizes
// are what they have at least, in bytes. Fewer, more or smaller ones are an
// error: a guest must not run without its data.
func (s *Store) OpenDisks(id string, numbers []int, sizes []int64) (disks []*os.File, err error) {
	defer func() {
		if err != nil {
			seqpacket.CloseAll(disks)
			disks = nil
		}
	}()
	for i, size := range sizes {
		f, err := s.OpenDisk(id, numbers[i])
		if err != nil {
			return disks, unreadable(i, numbers[i], "cannot be opened: %v", err)
		}
		disks = append(disks, f)
		if info, err := f.Stat(); err != nil {
			return disks, unreadable(i, numbers[i], "cannot be looked at: %v", err)
		} else if info.Size() < size {
			return disks, unreadable(i, numbers[i], "has %d bytes and had %d", info.Size(), size)
		}
	}
	for n := range MaxDisks {
		if s.HasDisk(id, n) && !slices.Contains(numbers, n) {
			return disks, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "guest.disks",
				Message: fmt.Sprintf("The guest has more than the %d disks that it was to be started with.", len(sizes))}
		}
	}
	return disks, nil
}

// AllDisks opens the disks of the guest id, as many as there are.
func (s *Store) AllDisks(id string) (disks []*os.File, err error) {
	for n := range MaxDisks {
		f, err := s.OpenDisk(id, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return disks, fmt.Errorf("open disk %d: %w", n, err)
		}
		disks = append(disks, f)
	}
	return disks, nil
}

// Grow makes disk i of the guest id larger. When it returns that is on the medium. It
// is no error where the disk has that size already.
func (s *Store) Grow(id string, i int, size int64) error {
	if !s.Exists(id) {
		return NotFound(id)
	}
	refuse := func(field, format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field, Message: fmt.Sprintf(format, args...)}
	}
	if i < 0 || i >= MaxDisks {
		return refuse("disk", "The guest has no disk %d.", i)
	}
	f, err := s.OpenDisk(id, i)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("disk", "The guest has no disk %d.", i)
	}
	if err != nil {
		return fmt.Errorf("grow disk %d: %w", i, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("grow disk %d: %w", i, err)
	}
	switch has := info.Size(); {
	case size < has:
		return refuse("size", "The disk has %d bytes and cannot be made smaller, %d were asked for.", has, size)
	case size == has:
	case size > image.MaxSize || size%growUnit != 0:
		return refuse("size", "A disk grows to a multiple of %d bytes, at most %d, not to %d.", growUnit, int64(image.MaxSize), size)
	default:
		if err := image.CheckFree(s.dir, size-has, "size"); err != nil {
			return err
		}
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("grow disk %d: %w", i, err)
		}
	}
	if err := f.Sync(); err != nil { // also of one that grew before
		return fmt.Errorf("grow disk %d: %w", i, err)
	}
	return nil
}

func (s *Store) diskPath(id string, i int) string { return s.path(id, diskPrefix+strconv.Itoa(i)) }

// OpenDisk opens disk i of the guest id as OpenDisks does.
func (s *Store) OpenDisk(id string, i int) (*os.File, error) {
	f, err := os.OpenFile(s.diskPath(id, i), os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(s.diskPath(id, i), os.O_RDWR, 0)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return nil, path.Err // the path is nobody's business but ours
	}
	return f, err
}

// unreadable is the refusal for a guest whose disk of that number, the one at place i,
// cannot be used.
func unreadable(i, number int, format string, args ...any) error {
	return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: fmt.Sprintf("guest.disks[%d]", i),
		Message: fmt.Sprintf("The guest's disk %d on the host's data disk "+format+": the guest is not started without it.", append([]any{number}, args...)...)}
}

// NewLog starts a console log for the guest id. The one of its last life stays
// in place until KeepLog.
func (s *Store) NewLog(id string) (*os.File, error) {
	if err := s.DropLog(id); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(id, newLogName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start console log: %w", err)
	}
	return f, nil
}

// KeepLog makes the log that NewLog has started the guest's, keeping the one
// before under another name. Without a NewLog it does nothing.
func (s *Store) KeepLog(id string) error {
	if _, err := os.Lstat(s.path(id, newLogName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	path := s.path(id, logName)
	if err := os.Rename(path, s.path(id, oldLogName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep console log: %w", err)
	}
	if err := os.Rename(s.path(id, newLogName), path); err != nil {
		return fmt.Errorf("keep console log: %w", err)
	}
	return nil
}

// DropLog removes the log that NewLog has started, if KeepLog has not been called.
func (s *Store) DropLog(id string) error {
	if err := os.Remove(s.path(id, newLogName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop console log: %w", err)
	}
	return nil
}

// OpenLog opens the console log of the guest id for reading.
func (s *Store) OpenLog(id string) (*os.File, error) {
	f, err := os.Open(s.path(id, logName))
	if errors.Is(err, fs.ErrNotExist) {
		if !s.Exists(id) {
			return nil, NotFound(id)
		}
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest has no console log: it has not been started yet."}
	}
	if err != nil {
		return nil, fmt.Errorf("open console log: %w", err)
	}
	return f, nil
}

// Interfaces returns the addresses of the guest's NICs, as kept.
func (s *Store) Interfaces(id string) ([]Interface, error) {
	b, err := os.ReadFile(s.path(id, nicsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var nics []Interface
	if err := json.Unmarshal(b, &nics); err != nil {
		return nil, fmt.Errorf("read addresses of %s: %w", id, err)
	}
	hostcall.Number(nics, func(n *Interface) *int { return &n.Number })
	return nics, nil
}

// SetInterfaces keeps the addresses of the guest's NICs.
func (s *Store) SetInterfaces(id string, nics []Interface) error {
	b, err := json.Marshal(nics)
	if err != nil {
		return fmt.Errorf("keep addresses: %w", err)
	}
	return WriteFile(s.path(id, nicsName), b)
}

// WriteFile replaces the file path by b, whole or not at all.
func WriteFile(path string, b []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write file: %w", err), os.Remove(temp))
	}
	return image.SyncDir(filepath.Dir(path))
}

// NotFound is the refusal for a guest that does not exist.
func NotFound(id string) error {
	return &hostcall.Error{Code: hostcall.NotFound, Field: "id", Message: fmt.Sprintf("There is no guest %s.", id)}
}
