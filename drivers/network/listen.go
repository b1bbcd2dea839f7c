package network

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ListenUDP opens a UDP socket on port of the interface device alone, allowed
// to broadcast.
func ListenUDP(device string, port int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	if err := bindUDP(fd, device, port); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on UDP port %d of %s: %w", port, device, err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("udp-%s-%d", device, port)), nil
}

func bindUDP(fd int, device string, port int) error {
	if err := unix.BindToDevice(fd, device); err != nil {
		return err
	}
	for _, o := range []int{unix.SO_REUSEADDR, unix.SO_BROADCAST} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
}
