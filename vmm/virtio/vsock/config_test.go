package vsock

import (
	"encoding/binary"
	"testing"
)

// FuzzConfig lets a driver read and write the configuration at any width and offset: it is the
// CID, whatever was written, and zeros behind it.
func FuzzConfig(f *testing.F) {
	f.Add(uint32(3), uint64(0), uint8(8), []byte{1, 2, 3})
	f.Add(uint32(1<<32-2), uint64(5), uint8(8), []byte{})
	f.Add(uint32(7), uint64(1<<64-1), uint8(1), []byte{9})
	f.Fuzz(func(t *testing.T, cid uint32, off uint64, n uint8, written []byte) {
		d := &Device{cid: cid}
		d.WriteConfig(off, written)
		b := make([]byte, n%9)
		d.ReadConfig(off, b)
		whole := binary.LittleEndian.AppendUint64(nil, uint64(cid))
		for i, got := range b {
			var want byte
			if at := off + uint64(i); at >= off && at < uint64(len(whole)) {
				want = whole[at]
			}
			if got != want {
				t.Fatalf("byte %d = %#x, want %#x", off+uint64(i), got, want)
			}
		}
	})
}
