package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// vsockEcho listens on a port of the socket device, and sends back what comes.
func vsockEcho(word string) (string, error) {
	port, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return "", err
	}
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	err = unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(port)})
	if err == nil {
		err = unix.Listen(l, 8)
	}
	if err != nil {
		unix.Close(l)
		return "", err
	}
	go func() {
		for {
			fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != nil {
				return
			}
			go func() {
				f := os.NewFile(uintptr(fd), "vsock")
				defer f.Close()
				n, err := io.Copy(f, f)
				fmt.Printf("TESTGUEST vsock echoed %d bytes: %v\n", n, err)
			}()
		}
	}()
	return word, nil
}

// vsockConnect connects to CID:PORT.
func vsockConnect(cid, port string) (string, error) {
	c, err := strconv.ParseUint(cid, 10, 32)
	if err != nil {
		return "", err
	}
	p, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return "", err
	}
	s, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(s)
	return "connected", unix.Connect(s, &unix.SockaddrVM{CID: uint32(c), Port: uint32(p)})
}
