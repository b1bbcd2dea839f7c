package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

// InspectNode is Inspect on the disk's device node.
func InspectNode(d Disk) (Content, string, error) {
	f, err := os.Open(d.Node)
	if err != nil {
		return Foreign, "", err
	}
	defer f.Close()
	return Inspect(f, d.Size)
}

// Prepare formats the chosen disk where that is to be done.
func (c *Choice) Prepare() (err error) {
	if c.Action != Format {
		return nil
	}
	// O_EXCL on a block device fails when it, or a partition of it, is in use.
	f, err := os.OpenFile(c.Disk.Node, os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("format %s: %w", c.Disk.Node, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := c.still(f); err != nil {
		return fmt.Errorf("format %s: %w", c.Disk.Node, err)
	}
	o := xfs.Options{Label: Label}
	rand.Read(o.UUID[:])
	o.UUID[6], o.UUID[8] = o.UUID[6]&0x0f|0x40, o.UUID[8]&0x3f|0x80 // RFC 9562, version 4
	if err := wipe(f, c.Disk.Size); err != nil {
		return fmt.Errorf("format %s: %w", c.Disk.Node, err)
	}
	if err := xfs.Format(f, c.Disk.Size, o); err != nil {
		return fmt.Errorf("format %s: %w", c.Disk.Node, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("format %s: %w", c.Disk.Node, err)
	}
	return nil
}

// still refuses a disk that is not what was chosen any more: names go from one
// disk to another, and somebody may have written to it.
func (c *Choice) still(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("look up size: %w", err)
	}
	if size != c.Disk.Size {
		return fmt.Errorf("the disk has %d bytes, the one that was chosen had %d", size, c.Disk.Size)
	}
	content, what, err := Inspect(f, size)
	switch {
	case err != nil:
		return err
	case content == Data:
		return errors.New("the disk holds a data file system by now")
	case content == Foreign && what != c.Erases:
		return fmt.Errorf("the disk holds %s by now", what)
	}
	return nil
}

// wipe clears both ends of a disk, so that nothing takes it for what it was.
func wipe(f *os.File, size int64) error {
	zeros := make([]byte, edge)
	for _, offset := range []int64{0, size - edge} {
		if _, err := f.WriteAt(zeros, offset); err != nil {
			return fmt.Errorf("clear %d bytes at %d: %w", edge, offset, err)
		}
	}
	return nil
}

// MountData mounts the data disk at node on dir.
func MountData(node, dir string) error {
	if err := unix.Mount(node, dir, "xfs", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", node, dir, err)
	}
	return nil
}

// MountConfig mounts a FAT partition read-only on dir.
func MountConfig(node, dir string) error {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(node, dir, "vfat", flags, "umask=077"); err != nil {
		return fmt.Errorf("mount %s on %s: %w", node, dir, err)
	}
	return nil
}
