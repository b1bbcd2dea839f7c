package balloon

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// Rules are the system calls that a balloon makes. Removing pages by their mapping
// needs no descriptor of the guest's memory, and reaches nothing else.
func Rules() []jail.Rule {
	return []jail.Rule{
		jail.Allow(unix.SYS_MADVISE, "pages that a guest gives back", jail.Equal(2, unix.MADV_REMOVE)),
	}
}
