package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// rules are what control needs besides what every Go program, messages with core and
// work on open files need. Each stands beside its reason.
func rules() []jail.Rule {
	own := []jail.Rule{
		jail.Allow(unix.SYS_SOCKET, "connect to core again after its restart", jail.Equal(0, unix.AF_UNIX)),
		jail.Allow(unix.SYS_CONNECT, "connect to core again after its restart; there is no network but the handed listener's"),
		jail.Allow(unix.SYS_SETSOCKOPT, "TCP_NODELAY and keep-alive of accepted connections", jail.Equal(1, unix.IPPROTO_TCP)),
		jail.Allow(unix.SYS_SETSOCKOPT, "keep-alive of accepted connections", jail.Equal(1, unix.SOL_SOCKET), jail.Equal(2, unix.SO_KEEPALIVE)),
		jail.Allow(unix.SYS_FADVISE64, "read an image's digest from the disk, not from the cache"),
		jail.Allow(unix.SYS_MADVISE, "the store's mapping is read here and there", jail.Equal(2, unix.MADV_RANDOM)),
		jail.Allow(unix.SYS_FALLOCATE, "the store keeps room on the disk", jail.Equal(1, unix.FALLOC_FL_KEEP_SIZE)),
		jail.Allow(unix.SYS_FLOCK, "release of the store's lock at the end"),
	}
	return slices.Concat(jail.Messages(), jail.Connections(), jail.Files(), own, jail.NoPaths())
}

// confine leaves the process with its open descriptors and no way to any path: the
// socket of core is connected to by name, which Landlock does not cover.
func confine() error {
	if err := jail.Confine(jail.Filter{Rules: rules()}); err != nil {
		return fmt.Errorf("%w: the host's kernel needs Landlock and seccomp", err)
	}
	return nil
}
