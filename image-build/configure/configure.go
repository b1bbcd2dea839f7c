// Package configure puts a configuration document onto an Ashlar image or a
// stick that one was written to, and reads it back. It writes to the
// configuration partition and to nothing else.
//
// A power cut or a pulled stick leaves the old document or the new one: see
// fat.Volume.WriteFile.
//
// The document holds the host's private key, so a file that it is put into is
// its owner's alone from then on, where the file system knows of owners.
package configure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/disk"
)

// ErrNotConfigured is what Read returns for an image without a document.
var ErrNotConfigured = errors.New("the image is not configured")

// Configure checks doc and writes it into the configuration partition of the
// image at path, a file or a block device such as /dev/sdX. What was written is
// read back. An invalid document is refused with config.Errors, what is no
// image with disk.ErrNotAshlar, and nothing is changed then.
func Configure(path string, doc []byte) error {
	if _, err := config.Parse(doc); err != nil {
		return fmt.Errorf("configure %s: the document is not valid:\n%w", path, err)
	}
	if err := change(path, doc); err != nil {
		return fmt.Errorf("configure %s: %w", path, err)
	}
	got, err := Read(path)
	if err != nil {
		return fmt.Errorf("configure %s: read back: %w", path, err)
	}
	if string(got) != string(doc) {
		return fmt.Errorf("configure %s: what is read back is not what was written: the stick is faulty", path)
	}
	return nil
}

func change(path string, doc []byte) (err error) {
	// With O_EXCL Linux does not open a block device that is mounted, or a part of
	// it: what is in the memory of that file system would overwrite the document.
	f, size, err := open(path, os.O_RDWR|os.O_EXCL)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: unmount its partitions first", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l, err := disk.Open(f, size)
	if err != nil {
		return err
	}
	v, err := l.OpenConfig(f)
	if err != nil {
		return err
	}
	hide(f)
	return v.WriteFile(config.FileName, doc)
}

// hide takes a file from everybody but its owner. Not every file system can do
// that, and not everybody who may write a file owns it.
func hide(f *os.File) {
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		_ = f.Chmod(st.Mode().Perm() &^ 0o077)
	}
}

// Read returns the document on the image at path as it lies there, without
// judging it.
func Read(path string) ([]byte, error) {
	f, size, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", path, err)
	}
	defer f.Close()
	l, err := disk.Open(f, size)
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", path, err)
	}
	v, err := l.OpenConfig(f)
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", path, err)
	}
	b, err := v.ReadFile(config.FileName, config.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration of %s: %w", path, ErrNotConfigured)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", path, err)
	}
	return b, nil
}

// open opens a file or block device and finds its size.
func open(path string, flag int) (*os.File, int64, error) {
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() && (st.Mode()&os.ModeDevice == 0 || st.Mode()&os.ModeCharDevice != 0) {
		err = errors.New("is neither a file nor a block device")
	}
	var size int64
	if err == nil {
		// Stat has no size for a block device.
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}
