package console

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// OpenLog opens the console log of m; nil where there is none yet.
func OpenLog(ctx context.Context, core Core, m *machine.Machine) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := core.File(ctx, hostcall.Call{Method: hostcall.GuestLog, ID: m.UID()})
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.NotFound {
		return nil, nil
	}
	return f, refuse.Core(err, m.Name(), nil)
}

// Tail sends the last max bytes of f in pieces. A log that is cut meanwhile ends early.
func Tail(f *os.File, max int64, send func([]byte) error) error {
	info, err := f.Stat()
	if err != nil {
		return refuse.Internal(err)
	}
	end := info.Size()
	buf := make([]byte, chunk)
	for pos := end - min(end, max); pos < end; {
		n, err := f.ReadAt(buf[:min(chunk, end-pos)], pos)
		pos += int64(n)
		if n > 0 {
			if serr := send(buf[:n]); serr != nil {
				return serr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return refuse.Internal(err)
		}
	}
	return nil
}
