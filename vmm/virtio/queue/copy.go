package queue

import "github.com/ashlar-hv/ashlar/vmm/memory"

// Len is the sum of the lengths of bufs in bytes.
func Len(bufs []Buffer) uint64 {
	var n uint64
	for _, b := range bufs {
		n += uint64(b.Len)
	}
	return n
}

// Slice appends to dst the buffers that are the n bytes from off in bufs, or
// as many as there are.
func Slice(dst, bufs []Buffer, off, n uint64) []Buffer {
	for _, b := range bufs {
		l := uint64(b.Len)
		if off >= l {
			off -= l
			continue
		}
		if n == 0 {
			break
		}
		m := min(l-off, n)
		dst = append(dst, Buffer{GPA: b.GPA + off, Len: uint32(m)})
		off, n = 0, n-m
	}
	return dst
}

// CopyOut fills p with the bytes from off in bufs and returns how many it had.
func CopyOut(mem *memory.Memory, bufs []Buffer, off uint64, p []byte) (int, error) {
	return each(bufs, off, p, mem.ReadAt)
}

// CopyIn writes p to bufs from off on and returns how many bytes had room.
func CopyIn(mem *memory.Memory, bufs []Buffer, off uint64, p []byte) (int, error) {
	return each(bufs, off, p, mem.WriteAt)
}

func each(bufs []Buffer, off uint64, p []byte, do func(uint64, []byte) error) (int, error) {
	done := 0
	for _, b := range bufs {
		l := uint64(b.Len)
		if off >= l {
			off -= l
			continue
		}
		if done == len(p) {
			break
		}
		n := int(min(l-off, uint64(len(p)-done)))
		if err := do(b.GPA+off, p[done:done+n]); err != nil {
			return done, err
		}
		done, off = done+n, 0
	}
	return done, nil
}
