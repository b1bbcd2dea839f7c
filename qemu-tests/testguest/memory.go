package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// filled is memory that fill has taken.
var filled []byte

// memoryCommand is a command that has to do with memory.
func memoryCommand(f []string) (string, error) {
	switch f[0] {
	case "fill":
		return f[1], fill(f[1])
	case "drop":
		return "", fill("0")
	case "unbind":
		return unbind(f[1])
	case "touch":
		return f[2], touch(f[1], f[2])
	}
	return send(f[1], f[2], f[3])
}

// fill takes mib mebibytes and writes to each page, instead of what it had.
func fill(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	if filled != nil {
		if err := unix.Munmap(filled); err != nil {
			return err
		}
		filled = nil
	}
	if n == 0 {
		return nil
	}
	if filled, err = unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return err
	}
	for i := 0; i < len(filled); i += 4096 {
		filled[i] = byte(i>>12) | 1
	}
	return nil
}

// unbind takes a virtio driver's devices away from it.
func unbind(driver string) (string, error) {
	dir := "/sys/bus/virtio/drivers/" + driver
	devices, err := filepath.Glob(dir + "/virtio*")
	if err != nil || len(devices) == 0 {
		return "", fmt.Errorf("%s has no devices: %w", dir, err)
	}
	for _, d := range devices {
		if err := os.WriteFile(dir+"/unbind", []byte(filepath.Base(d)), 0); err != nil {
			return "", err
		}
	}
	return strconv.Itoa(len(devices)), nil
}

// touch writes to every page of mib mebibytes of physical address space.
func touch(address, mib string) error {
	at, err := strconv.ParseInt(address, 0, 64)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), at, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return unix.Munmap(b)
}

// send sends the first mib mebibytes of a device as they are cached (sendfile(2)), and
// returns the line that comes back.
func send(address, device, mib string) (string, error) {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return "", err
	}
	d, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer d.Close()
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	t, ok := c.(*net.TCPConn)
	if !ok {
		return "", errors.New("no TCP connection")
	}
	if _, err := t.ReadFrom(io.LimitReader(d, int64(n)<<20)); err != nil {
		return "", err
	}
	if err := t.CloseWrite(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}
