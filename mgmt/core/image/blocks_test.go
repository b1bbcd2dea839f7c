package image

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// blocks is how many blocks of 512 bytes f takes on the disk.
func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}
