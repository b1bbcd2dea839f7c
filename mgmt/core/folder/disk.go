package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
)

// halfSuffix is on the name of a disk that is being made for a guest that exists.
const halfSuffix = ".half"

// HasDisk reports whether the guest id has a disk n.
func (s *Store) HasDisk(id string, n int) bool {
	_, err := os.Lstat(s.diskPath(id, n))
	return !errors.Is(err, fs.ErrNotExist)
}

// AddDisk makes disk n of the guest id, whole or not at all. One that is there already
// was made by the same call before: it stays as it is.
func (s *Store) AddDisk(id string, n int, d hostcall.Disk) (made bool, err error) {
	if !s.Exists(id) {
		return false, NotFound(id)
	}
	if n < 0 || n >= MaxDisks {
		return false, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "disk",
			Message: fmt.Sprintf("Disks have numbers from 0 to %d, not %d.", MaxDisks-1, n)}
	}
	if s.HasDisk(id, n) {
		return false, nil
	}
	half := s.diskPath(id, n) + halfSuffix
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("create disk %d: %w", n, err)
	}
	if _, err = s.makeDisk(half, d, 0, 0); err == nil {
		err = os.Rename(half, s.diskPath(id, n))
	}
	if err != nil {
		if rerr := os.Remove(half); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return false, err
	}
	return true, image.SyncDir(s.path(id))
}

// RemoveDisk removes disk n of the guest id, if there is one.
func (s *Store) RemoveDisk(id string, n int) error {
	for _, name := range []string{s.diskPath(id, n) + halfSuffix, s.diskPath(id, n)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove disk %d: %w", n, err)
		}
	}
	return image.SyncDir(s.path(id))
}
