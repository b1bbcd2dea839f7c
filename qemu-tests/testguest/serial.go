package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func serialPort(f []string) (string, error) {
	if f[0] == "hvc" {
		return "", os.WriteFile("/dev/hvc0", []byte("TESTGUEST hvc0 "+f[1]+"\n"), 0)
	}
	path, fd, err := openPort(f[1])
	if err != nil {
		return "", err
	}
	if f[0] == "port-echo" {
		go func() {
			for echoPort(fd) {
			}
		}()
		return path, nil
	}
	go func() {
		// A write waits until somebody is connected, of which there is no sign else.
		_, err := unix.Write(fd, []byte(f[2]))
		fmt.Printf("TESTGUEST port said %v %v\n", err, unix.Close(fd))
	}()
	return path, nil
}

// openPort opens the serial port called name, once the driver has found it.
func openPort(name string) (path string, fd int, err error) {
	for range 600 {
		paths, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err == nil && strings.TrimSpace(string(b)) == name {
				path = "/dev/" + filepath.Base(filepath.Dir(p))
				fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
				return path, fd, err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", 0, fmt.Errorf("no serial port %s", name)
}

// echoPort serves one connection to a port, to its end.
func echoPort(fd int) bool {
	if _, err := unix.Write(fd, []byte("hello\n")); err != nil {
		fmt.Println("ERR port:", err)
		return false
	}
	total := 0
	for b := make([]byte, 32<<10); ; {
		n, err := unix.Read(fd, b)
		if err != nil {
			fmt.Println("ERR port:", err)
			return false
		}
		if n == 0 { // nobody is connected
			fmt.Printf("TESTGUEST port echoed %d bytes\n", total)
			return true
		}
		for out := b[:n]; len(out) > 0; {
			n, err := unix.Write(fd, out)
			if err != nil {
				fmt.Println("ERR port:", err)
				return false
			}
			out, total = out[n:], total+n
		}
	}
}
