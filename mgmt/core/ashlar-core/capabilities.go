package main

import "golang.org/x/sys/unix"

// capabilities are what core keeps, in its own sets and in the bounding set of
// all that it starts. VMMs and netd give up even these before they read
// anything of a guest's.
var capabilities = map[int]bool{
	// Namespaces, mounts and their empty root for VMMs and netd.
	unix.CAP_SYS_ADMIN: true,
	// The empty root where the initramfs cannot be pivoted away.
	unix.CAP_SYS_CHROOT: true,
	// Bridges, taps, addresses, routing, nftables.
	unix.CAP_NET_ADMIN: true,
	// UDP port 67 on the bridges.
	unix.CAP_NET_BIND_SERVICE: true,
	// VMMs and netd become users of their own, and give up the rest.
	unix.CAP_SETUID:  true,
	unix.CAP_SETGID:  true,
	unix.CAP_SETPCAP: true,
	// A disk that grows while its guest runs: the VMM, which is a user of its own by
	// then, may make its file larger (RLIMIT_FSIZE). Memory of a pool, which the kernel pins
	// for a VMM's rings (RLIMIT_MEMLOCK).
	unix.CAP_SYS_RESOURCE: true,
	// Ending processes that have become other users.
	unix.CAP_KILL: true,
	// Control's folder and socket belong to control; after a restart of core
	// they still do, and core must be able to set them right.
	unix.CAP_CHOWN:        true,
	unix.CAP_FOWNER:       true,
	unix.CAP_DAC_OVERRIDE: true,
}
