// Package image keeps images as files: `ID.part` while an image is being
// written, `ID` (mode 0400) once it is sealed.
//
// Every change is on the disk when the call returns: a file is synced before
// it gets its name, its folder after.
package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"golang.org/x/sys/unix"
)

const (
	partSuffix = ".part" // being written by control
	tempSuffix = ".temp" // core's own, within one call

	// MaxSize bounds an image in bytes.
	MaxSize = 16 << 40
	// MaxImages bounds their number, so that a list fits into one message.
	MaxImages = 512
	// Reserve is how many bytes of the pool stay free for the host itself.
	Reserve = host.PoolReserve
)

// A Store is a folder of images. Its methods may be called at once for
// different images; for one image the caller takes turns.
type Store struct{ dir string }

// Open returns the store in dir, which it makes where it is missing. What a
// power cut left half done is removed. Where that fails the store is there beside the error.
func Open(dir string) (*Store, error) {
	s := &Store{dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, fmt.Errorf("open image store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return s, fmt.Errorf("open image store: %w", err)
	}
	for _, e := range entries {
		id, temp := strings.CutSuffix(e.Name(), tempSuffix)
		part, isPart := strings.CutSuffix(e.Name(), partSuffix)
		_, err := os.Lstat(s.path(part))
		// A part beside its sealed image is what Seal had copied.
		if temp && hostcall.ValidID(id) || isPart && hostcall.ValidID(part) && err == nil {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return s, fmt.Errorf("open image store: remove remains: %w", err)
			}
		}
	}
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Create makes the unsealed image id of size bytes, all holes.
func (s *Store) Create(id string, size int64) (*os.File, error) {
	if size <= 0 || size > MaxSize {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "size",
			Message: fmt.Sprintf("An image has 1 to %d bytes, not %d.", int64(MaxSize), size)}
	}
	if err := s.mayCreate(id, size); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(id+partSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), SyncDir(s.dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("create image: %w", err), f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// mayCreate checks that id is new and that there is room for it.
func (s *Store) mayCreate(id string, size int64) error {
	for _, name := range []string{id, id + partSuffix} {
		if _, err := os.Lstat(s.path(name)); err == nil {
			return &hostcall.Error{Code: hostcall.AlreadyExists, Field: "id",
				Message: fmt.Sprintf("There is an image %s already: open it, delete it or choose another identifier.", id)}
		}
	}
	images, err := s.List()
	if err != nil {
		return err
	}
	if len(images) >= MaxImages {
		return &hostcall.Error{Code: hostcall.ResourceExhausted,
			Message: fmt.Sprintf("The pool has its %d images: delete one that is not needed.", MaxImages)}
	}
	return CheckFree(s.dir, size, "size")
}

// Open opens the image id: for reading and writing where it is not sealed, for
// reading where it is.
func (s *Store) Open(id string) (f *os.File, sealed bool, err error) {
	f, err = os.OpenFile(s.path(id), os.O_RDONLY, 0)
	if err == nil {
		return f, true, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(s.path(id+partSuffix), os.O_RDWR, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, notFound(id)
	}
	if err != nil {
		return nil, false, fmt.Errorf("open image: %w", err)
	}
	return f, false, nil
}

// OpenSealed opens the image id for reading. field names the request's field
// that asks for it.
func (s *Store) OpenSealed(id, field string) (*os.File, error) {
	if !hostcall.ValidID(id) {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: field,
			Message: "An image is named by its identifier, 32 lower-case hexadecimal digits."}
	}
	f, sealed, err := s.Open(id)
	var refused *hostcall.Error
	if errors.As(err, &refused) {
		return nil, &hostcall.Error{Code: refused.Code, Field: field, Message: refused.Message}
	}
	if err != nil {
		return nil, err
	}
	if !sealed {
		f.Close()
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: field,
			Message: fmt.Sprintf("Image %s is not complete: finish its upload first.", id)}
	}
	return f, nil
}

// Seal makes the image id final. Sealing a sealed image does nothing.
func (s *Store) Seal(id string) error {
	f, sealed, err := s.Open(id)
	if err != nil || sealed {
		if f != nil {
			f.Close()
		}
		return err
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("seal image: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("seal image: %w", err)
	}
	part := s.path(id + partSuffix)
	written, err := hasWriter(part)
	if err != nil {
		return fmt.Errorf("seal image: %w", err)
	}
	if written {
		// Whoever holds the descriptor could go on writing for ever. Seal
		// what is there now, as a file of its own.
		if err := s.replace(id); err != nil {
			return fmt.Errorf("seal image: %w", err)
		}
	}
	if err := checkSize(part); err != nil {
		return fmt.Errorf("seal image: %w", err)
	}
	if err := os.Chmod(part, 0o400); err != nil {
		return fmt.Errorf("seal image: %w", err)
	}
	if err := os.Rename(part, s.path(id)); err != nil {
		return fmt.Errorf("seal image: %w", err)
	}
	return SyncDir(s.dir)
}

// checkSize refuses a size that Create would not have given: whoever writes an
// image can change it.
func checkSize(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.Size() <= 0 || info.Size() > MaxSize) {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "id",
			Message: fmt.Sprintf("An image has 1 to %d bytes, and this one has been made to have %d: delete it.", int64(MaxSize), info.Size())}
	}
	return err
}

// replace puts a copy of the unsealed image in its place.
func (s *Store) replace(id string) error {
	from, err := os.Open(s.path(id + partSuffix))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(s.path(id+tempSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(Clone(to, from), to.Sync(), to.Close())
	if err == nil {
		err = os.Rename(to.Name(), from.Name())
	}
	if err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	return nil
}

// hasWriter reports whether somebody has the file open for writing. A read
// lease cannot be had on such a file (fcntl(2), F_SETLEASE).
func hasWriter(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() // and with it the lease
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	return false, err
}

// Delete removes the image id. Guests' disks are their own: they stay.
func (s *Store) Delete(id string) error {
	found := false
	for _, name := range []string{id + partSuffix, id} {
		err := os.Remove(s.path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete image: %w", err)
		}
		found = found || err == nil
	}
	if !found {
		return notFound(id)
	}
	return SyncDir(s.dir)
}

// List returns all images, in order of their identifiers.
func (s *Store) List() ([]hostcall.ImageStatus, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var images []hostcall.ImageStatus
	for _, e := range entries {
		id, part := strings.CutSuffix(e.Name(), partSuffix)
		info, err := e.Info()
		if !hostcall.ValidID(id) || err != nil || !info.Mode().IsRegular() {
			continue
		}
		images = append(images, hostcall.ImageStatus{ID: id, Size: info.Size(), Sealed: !part})
	}
	slices.SortFunc(images, func(a, b hostcall.ImageStatus) int { return strings.Compare(a.ID, b.ID) })
	return images, nil
}

func notFound(id string) error {
	return &hostcall.Error{Code: hostcall.NotFound, Field: "id", Message: fmt.Sprintf("There is no image %s.", id)}
}
