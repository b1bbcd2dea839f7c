package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A Setting is a file of the kernel and what is written to it.
type Setting struct{ Path, Value string }

// Sysctls are the settings below /proc/sys.
var Sysctls = []Setting{
	{"kernel/printk_devkmsg", "on\n"},        // init bounds what programs log, by itself
	{"kernel/kptr_restrict", "2"},            // no kernel addresses for anybody
	{"kernel/dmesg_restrict", "1"},           // the log is root's
	{"fs/protected_symlinks", "1"},           // symbolic links in /tmp
	{"fs/protected_hardlinks", "1"},          // hard links likewise
	{"net/ipv4/conf/all/rp_filter", "1"},     // source addresses must be routable back
	{"net/ipv4/conf/default/rp_filter", "1"}, // also on interfaces to come
	{"net/ipv4/conf/all/accept_redirects", "0"},
	{"net/ipv4/conf/default/accept_redirects", "0"},
	{"net/ipv4/conf/all/send_redirects", "0"},
	{"net/ipv4/conf/default/send_redirects", "0"},
	// No IPv6 on any interface until the network step wants it on one.
	{"net/ipv6/conf/default/disable_ipv6", "1"},
	{"net/ipv6/conf/all/accept_redirects", "0"},
}

// Memory are the settings below /sys (Documentation/admin-guide/mm/transhuge.rst): memory
// shared with a guest is made of huge pages where its VMM asks for them, as the kernel's own
// configuration has it for all other memory. Later the kernel makes a huge page of small
// ones only where all of them are there: what a guest has given back stays the host's.
var Memory = []Setting{
	{"kernel/mm/transparent_hugepage/shmem_enabled", "advise"},
	{"kernel/mm/transparent_hugepage/khugepaged/max_ptes_none", "0"},
}

// LastEnded, below /proc/PID, has the kernel end the process, where the host has no memory
// left, after guests and after what a rescue shell runs; what it starts inherits that
// (proc_pid_oom_score_adj(5)). Any is what a process has that nobody has told.
var (
	LastEnded = []Setting{{"oom_score_adj", "-900"}}
	Any       = []Setting{{"oom_score_adj", "0"}}
)

// Quiet keeps the kernel's own messages below "error" off the consoles.
var Quiet = []Setting{{"kernel/printk", "4 4 1 4"}}

// Apply writes the settings below root; it goes on after failures and returns
// them joined.
func Apply(root string, settings []Setting) error {
	var errs []error
	for _, s := range settings {
		if err := os.WriteFile(filepath.Join(root, s.Path), []byte(s.Value), 0); err != nil {
			errs = append(errs, fmt.Errorf("set %s to %q: %w", s.Path, s.Value, err))
		}
	}
	return errors.Join(errs...)
}
