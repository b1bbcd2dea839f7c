package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

// Label is the XFS label of the host's data disk.
const Label = "ashlar-data"

// edge is how much at each end of a disk must be zero for it to be blank: every
// partition table and file system that a server may carry shows itself there.
const edge = 1 << 20

// A Content is what lies on a disk.
type Content int

// Contents.
const (
	// Blank: nothing that anybody would miss, or the rest of a formatting of
	// ours that was cut off.
	Blank Content = iota
	// Data: a file system of ours.
	Data
	// Foreign: something else.
	Foreign
)

// signatures are the marks by which formats are told apart, for messages.
// Whether a disk is blank does not depend on them.
var signatures = []struct {
	name   string
	offset int64
	mark   string
}{
	{"a GPT partition table", 512, "EFI PART"},
	{"a GPT partition table", 4096, "EFI PART"},
	{"an XFS file system", 0, "XFSB"},
	{"an ext2, ext3 or ext4 file system", 1080, "\x53\xef"},
	{"a btrfs file system", 65600, "_BHRfS_M"},
	{"a LUKS encrypted volume", 0, "LUKS\xba\xbe"},
	{"an LVM physical volume", 512, "LABELONE"},
	{"a Linux RAID member", 4096, "\xfc\x4e\x2b\xa9"},
	{"a Linux RAID member", 0, "\xfc\x4e\x2b\xa9"},
	{"a swap area", 4086, "SWAPSPACE2"},
	{"an NTFS file system", 3, "NTFS    "},
	{"an exFAT file system", 3, "EXFAT   "},
	{"an ISO 9660 file system", 32769, "CD001"},
	{"a VMFS volume", 1 << 20, "\x0d\xd0\x01\xc0"},
	// Last: FAT and boot sectors have the same mark.
	{"an MBR partition table or a boot sector", 510, "\x55\xaa"},
}

// Inspect tells what lies on a disk of size bytes; what names anything foreign
// in a few words.
func Inspect(r io.ReaderAt, size int64) (c Content, what string, err error) {
	info, err := xfs.Probe(r)
	switch {
	case err == nil && info.Label == Label && info.Size <= size:
		return Data, "", nil
	case err == nil && info.Label == Label:
		return Foreign, "a data file system of Ashlar's that is larger than the disk", nil
	case err == nil:
		return Foreign, fmt.Sprintf("an XFS file system labelled %q", info.Label), nil
	}
	head, err := window(r, 0, min(edge+4, size))
	if err != nil {
		return Foreign, "", err
	}
	if bytes.HasPrefix(head, []byte(xfs.Unfinished)) {
		return Blank, "", nil
	}
	for _, s := range signatures {
		if end := s.offset + int64(len(s.mark)); end <= int64(len(head)) && string(head[s.offset:end]) == s.mark {
			return Foreign, s.name, nil
		}
	}
	tail, err := window(r, max(0, size-edge), min(edge, size))
	if err != nil {
		return Foreign, "", err
	}
	if !zero(head) || !zero(tail) {
		return Foreign, "data of an unknown kind", nil
	}
	return Blank, "", nil
}

func window(r io.ReaderAt, offset, length int64) ([]byte, error) {
	b := make([]byte, length)
	if n, err := r.ReadAt(b, offset); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", length, offset, err)
	}
	return b, nil
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
