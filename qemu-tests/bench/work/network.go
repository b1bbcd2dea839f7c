package work

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/wire"
)

// stall is how much longer than asked for a load may take: a network that stands is an error.
const stall = 30 * time.Second

// open connects and asks for a service, for a load that takes so long.
func open(address string, service wire.Service, d time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	err = c.SetDeadline(time.Now().Add(d + stall))
	if err == nil {
		_, err = c.Write([]byte{byte(service)})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// send counts what the other side has received when all has arrived.
func send(address string, d time.Duration) (Result, error) {
	c, err := open(address, wire.Sink, d)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	rw, end, err := fast(c)
	if err != nil {
		return Result{}, err
	}
	defer end()
	b := make([]byte, wire.Chunk)
	start, sent := time.Now(), 0
	for time.Since(start) < d {
		m, err := rw.Write(b)
		if sent += m; err != nil {
			return Result{}, fmt.Errorf("after %d bytes: %w", sent, err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return Result{}, err
	}
	n, err := count(rw)
	if err != nil {
		return Result{}, fmt.Errorf("of %d bytes: %w", sent, err)
	}
	return Result{n, time.Since(start)}, nil
}

func count(r io.Reader) (int64, error) {
	var n [8]byte
	_, err := io.ReadFull(r, n[:])
	return int64(binary.LittleEndian.Uint64(n[:])), err
}

func receive(address string, d time.Duration) (Result, error) {
	c, err := open(address, wire.Source, d)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	rw, end, err := fast(c)
	if err != nil {
		return Result{}, err
	}
	defer end()
	b := make([]byte, wire.Chunk)
	start, n := time.Now(), int64(0)
	for time.Since(start) < d {
		m, err := rw.Read(b)
		if err != nil {
			return Result{}, err
		}
		n += int64(m)
	}
	return Result{n, time.Since(start)}, nil
}

func roundTrips(address string, d time.Duration) (Result, error) {
	c, err := open(address, wire.Echo, d)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	rw, end, err := fast(c)
	if err != nil {
		return Result{}, err
	}
	defer end()
	b := make([]byte, 1)
	start, n := time.Now(), int64(0)
	for time.Since(start) < d {
		if _, err := rw.Write(b); err != nil {
			return Result{}, err
		}
		if _, err := io.ReadFull(rw, b); err != nil {
			return Result{}, err
		}
		n++
	}
	return Result{n, time.Since(start)}, nil
}

// packets counts the datagrams that have arrived.
func packets(address string, d time.Duration) (Result, error) {
	before, err := arrived(address)
	if err != nil {
		return Result{}, err
	}
	u, err := net.Dial("udp", address)
	if err != nil {
		return Result{}, err
	}
	defer u.Close()
	rw, end, err := fast(u)
	if err != nil {
		return Result{}, err
	}
	defer end()
	b := make([]byte, wire.Datagram)
	start := time.Now()
	for time.Since(start) < d {
		// What does not fit into a queue is no error: it does not arrive.
		if _, err := rw.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
			continue
		}
	}
	took := time.Since(start)
	after, err := arrived(address)
	return Result{after - before, took}, err
}

func arrived(address string) (int64, error) {
	c, err := open(address, wire.Count, 0)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return count(c)
}
