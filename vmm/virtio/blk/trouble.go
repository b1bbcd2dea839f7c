package blk

import (
	"sync"

	"golang.org/x/sys/unix"
)

// trouble tells of errors of a disk's file, which are the host's and not the guest's.
type trouble struct {
	tell         func(full bool)
	full, failed sync.Once
}

// hostError answers a request for which the file gave e, 0 where it was too short.
func (r *request) hostError(e unix.Errno) error {
	m, t := &r.w.d.metrics, &r.w.d.trouble
	full := e == unix.ENOSPC || e == unix.EDQUOT
	counter, once := &m.hostErrors, &t.failed
	if full {
		counter, once = &m.hostFull, &t.full
	}
	counter.Add(1)
	if t.tell != nil {
		once.Do(func() { t.tell(full) })
	}
	return r.finishError()
}
