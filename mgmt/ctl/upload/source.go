package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Sizes of what is read and sent.
const (
	// maxPiece is the most bytes in a message of data.
	maxPiece = 1 << 20
	// maxZeroes is the most bytes in a message of zeroes: small enough for
	// progress to be seen.
	maxZeroes = 64 << 20
	// block is what is looked at to be zero.
	block = 64 << 10
	// hashBuffer is read at once for the digest.
	hashBuffer = 1 << 20
)

var zeroBlock [block]byte

// qcow2Magic begins qcow2 files (QEMU's docs/interop/qcow2.txt).
var qcow2Magic = []byte("QFI\xfb")

// A Source is a file or block device to upload.
type Source struct {
	f    *os.File
	size int64
}

// Open opens a regular file or a block device.
func Open(name string) (*Source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s, err := newSource(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func newSource(f *os.File) (*Source, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if m := fi.Mode(); !m.IsRegular() && (m&os.ModeDevice == 0 || m&os.ModeCharDevice != 0) {
		return nil, errors.New("neither a file nor a block device: its size must be known beforehand")
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, errors.New("is empty")
	}
	head := make([]byte, len(qcow2Magic))
	if _, err := f.ReadAt(head, 0); err == nil && bytes.Equal(head, qcow2Magic) {
		return nil, errors.New("is a qcow2 image; hosts take raw ones: `qemu-img convert -O raw` makes one of it")
	}
	return &Source{f: f, size: size}, nil
}

// Size is in bytes.
func (s *Source) Size() int64 { return s.size }

// Close closes the file.
func (s *Source) Close() error { return s.f.Close() }

// Digest reads everything and returns its SHA-256 in lower-case hexadecimal
// digits. progress is told how many bytes have been read.
func (s *Source) Digest(ctx context.Context, progress func(done int64)) (string, error) {
	h := sha256.New()
	buf := make([]byte, hashBuffer)
	for off := int64(0); off < s.size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n := min(int64(len(buf)), s.size-off)
		if err := s.readAt(buf[:n], off); err != nil {
			return "", err
		}
		h.Write(buf[:n])
		off += n
		progress(off)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readAt fills p; less is an error that says so.
func (s *Source) readAt(p []byte, off int64) error {
	n, err := s.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: has become shorter while it was read", s.f.Name())
	}
	return fmt.Errorf("%s: %w", s.f.Name(), err)
}

// A piece is data, or that many zero bytes where data is nil.
type piece struct {
	data   []byte
	zeroes int64
}

// next returns the piece at off. Data is in buf, which holds maxPiece bytes.
func (s *Source) next(off int64, buf []byte) (piece, error) {
	left := s.size - off
	if data, err := s.dataFrom(off); err == nil && data-off >= block {
		return piece{zeroes: min(data-off, left, maxZeroes)}, nil
	}
	n := min(int64(len(buf)), left)
	if err := s.readAt(buf[:n], off); err != nil {
		return piece{}, err
	}
	if z := leadingZeroes(buf[:n]); z > 0 {
		return piece{zeroes: z}, nil
	}
	return piece{data: buf[:untilZeroes(buf[:n])]}, nil
}

// leadingZeroes is how much of b is zero from its start on, in blocks; the
// last block may be short.
func leadingZeroes(b []byte) int64 {
	n := 0
	for n < len(b) && isZero(b[n:min(n+block, len(b))]) {
		n = min(n+block, len(b))
	}
	return int64(n)
}

// untilZeroes is where the first block of zeroes in b starts.
func untilZeroes(b []byte) int {
	for n := block; n < len(b); n += block {
		if isZero(b[n:min(n+block, len(b))]) {
			return n
		}
	}
	return len(b)
}

func isZero(b []byte) bool { return bytes.Equal(b, zeroBlock[:len(b)]) }
