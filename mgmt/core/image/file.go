package image

import (
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"golang.org/x/sys/unix"
)

// Clone makes the empty file to a copy of from: sharing its blocks where the
// file system can (ioctl_ficlone(2)), else by copying what is not a hole.
func Clone(to, from *os.File) error {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOSYS):
		return copyData(to, from)
	}
	return fmt.Errorf("clone %s: %w", from.Name(), err)
}

// copyData copies the data of from and leaves its holes holes.
func copyData(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if err := to.Truncate(info.Size()); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	in, out := int(from.Fd()), int(to.Fd())
	for at := int64(0); at < info.Size(); {
		start, err := unix.Seek(in, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only holes from here on
		}
		if err != nil {
			return fmt.Errorf("copy %s: find data: %w", from.Name(), err)
		}
		end, err := unix.Seek(in, start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("copy %s: find hole: %w", from.Name(), err)
		}
		if err := copyRange(out, in, start, end); err != nil {
			return fmt.Errorf("copy %s: %w", from.Name(), err)
		}
		at = end
	}
	return nil
}

// copyRange copies the bytes from start to end, to the same place.
func copyRange(out, in int, start, end int64) error {
	const most = 1 << 30 // of one call
	for start < end {
		r, w := start, start
		n, err := unix.CopyFileRange(in, &r, out, &w, int(min(end-start, most)), 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // the file has become shorter
		}
		start += int64(n)
	}
	return nil
}

// SyncDir brings the names in dir to the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// CheckFree refuses when the file system of dir has not size bytes left
// besides Reserve. field names the request's field that asks for them.
func CheckFree(dir string, size int64, field string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look up free space of %s: %w", dir, err)
	}
	free := int64(st.Bavail)*st.Bsize - Reserve
	if size > free {
		return &hostcall.Error{Code: hostcall.ResourceExhausted, Field: field,
			Message: fmt.Sprintf("The pool has %d MiB free, %d MiB are needed: delete images or guests, or give the host a larger disk.",
				max(free, 0)>>20, (size+1<<20-1)>>20)}
	}
	return nil
}
