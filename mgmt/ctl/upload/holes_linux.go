package upload

import (
	"errors"

	"golang.org/x/sys/unix"
)

// dataFrom is where data starts at off or after it: lseek(2) with SEEK_DATA.
// Where only a hole follows that is the end.
func (s *Source) dataFrom(off int64) (int64, error) {
	at, err := unix.Seek(int(s.f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return s.size, nil
	}
	return at, err
}
