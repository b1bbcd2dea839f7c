package blk

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// geometry is what a host file says about itself.
type geometry struct {
	size     uint64 // bytes, when the disk was made
	logical  uint32 // smallest block for a request, in bytes
	physical uint32 // block that can be written without reading first
	direct   bool   // opened with O_DIRECT: memory is aligned to memAlign
	memAlign uint32
}

// measure finds out what f is and whether it can be a disk.
func measure(f *os.File, readOnly bool) (geometry, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return geometry{}, fmt.Errorf("get flags: %w", err)
	}
	mode := flags & unix.O_ACCMODE
	if mode == unix.O_WRONLY || mode == unix.O_RDONLY && !readOnly || flags&unix.O_APPEND != 0 || flags&unix.O_PATH != 0 {
		return geometry{}, fmt.Errorf("open it for reading and writing, or make the disk read-only: %w", ErrFile)
	}
	fi, err := f.Stat()
	if err != nil {
		return geometry{}, err
	}
	g := geometry{logical: SectorSize, physical: SectorSize, memAlign: 1, direct: flags&unix.O_DIRECT != 0}
	switch {
	case fi.Mode().IsRegular():
		err = g.measureFile(f)
	case fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		err = g.measureDevice(f)
	default:
		return geometry{}, fmt.Errorf("%s is neither a regular file nor a block device: %w", fi.Mode().Type(), ErrFile)
	}
	if err != nil {
		return geometry{}, err
	}
	return g, g.check()
}

func (g *geometry) measureFile(f *os.File) error {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_DIOALIGN, &st)
	if err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	g.size = st.Size
	g.physical = st.Blksize
	if g.direct {
		g.logical, g.memAlign = 4096, 4096 // right for every file system
		if st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align != 0 {
			g.logical, g.memAlign = st.Dio_offset_align, st.Dio_mem_align
		}
	}
	return nil
}

func (g *geometry) measureDevice(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find size: %w", err)
	}
	logical, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("BLKSSZGET: %w", err)
	}
	physical, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKPBSZGET)
	if err != nil {
		return fmt.Errorf("BLKPBSZGET: %w", err)
	}
	g.size, g.logical, g.physical = uint64(size), uint32(logical), uint32(physical)
	if g.direct {
		g.memAlign = g.logical
	}
	return nil
}

// check makes sure of what the rest relies on.
func (g *geometry) check() error {
	if g.logical < SectorSize || g.logical&(g.logical-1) != 0 || g.logical > 1<<16 {
		return fmt.Errorf("blocks of %d bytes: %w", g.logical, ErrFile)
	}
	if g.physical < g.logical || g.physical&(g.physical-1) != 0 || g.physical > 1<<20 {
		g.physical = g.logical
	}
	if g.memAlign == 0 || g.memAlign&(g.memAlign-1) != 0 || g.memAlign > 1<<16 {
		return fmt.Errorf("memory aligned to %d bytes: %w", g.memAlign, ErrFile)
	}
	if g.size == 0 || g.size%uint64(g.logical) != 0 {
		return fmt.Errorf("%d bytes, want a multiple of %d and not 0: %w", g.size, g.logical, ErrSize)
	}
	return nil
}
