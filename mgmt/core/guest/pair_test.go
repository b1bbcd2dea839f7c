package guest

import "golang.org/x/sys/unix"

// pair makes a connected pair of stream sockets.
func pair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}
