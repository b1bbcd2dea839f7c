package mem

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// Rules are the system calls that a memory device makes: on the mappings of the guest's
// memory, without a descriptor of it.
func Rules() []jail.Rule {
	return []jail.Rule{
		jail.Allow(unix.SYS_MPROTECT, "blocks that are plugged in and unplugged", jail.Masked(2, unix.PROT_EXEC, 0)),
		jail.Allow(unix.SYS_MADVISE, "pages of a block that is unplugged", jail.Equal(2, unix.MADV_REMOVE)),
		jail.Allow(unix.SYS_MADVISE, "pages of a block that is plugged in populated", jail.Equal(2, unix.MADV_POPULATE_WRITE)),
	}
}
