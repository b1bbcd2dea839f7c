package machine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
)

// maxRegisteredPages bounds the pages of registered memory: to count them Linux compares
// each with all before it, which for so many takes some tenths of a second.
const maxRegisteredPages = 16 << 10

// registerMemory has the kernel pin populated memory for the rings of disks, where that takes
// nothing from anybody: pages of a pool are never given back.
// Other pages may go into the balloon, or move; those of the same address that follow would
// be others than the rings write to.
func (m *Machine) registerMemory() error {
	page := m.c.Backing.Kind().PoolSize()
	if page == 0 || m.mem.Size()/page > maxRegisteredPages {
		return nil
	}
	var err error
	m.buffers, err = iouring.Register(iouring.Iovec{Base: uint64(m.mem.Regions()[0].HostAddr), Len: m.mem.Size()})
	if errors.Is(err, unix.ENOMEM) {
		// Who runs this by hand, without privilege, may lock little: it works without.
		fmt.Fprintf(os.Stderr, "disks without registered memory: %v (raise RLIMIT_MEMLOCK)\n", err)
		return nil
	}
	return err
}
