package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// streamTime bounds a stream.
const streamTime = 2 * time.Minute

func timed(f []string) (string, error) {
	if len(f) == 0 {
		return "", errors.New("time which command?")
	}
	start := time.Now()
	_, err := command(f)
	return strconv.FormatInt(time.Since(start).Nanoseconds(), 10), err
}

func streams(f []string) (string, error) {
	if f[0] == "serve" {
		return "", serveStreams(f[1])
	}
	kib, err := strconv.ParseInt(f[3], 10, 32)
	if err != nil {
		return "", err
	}
	took, err := stream(f[1], f[2], kib<<10)
	return strconv.FormatInt(took.Nanoseconds(), 10), err
}

// serveStreams serves whoever connects: a line says what the other end does, send or
// receive, and how many bytes.
func serveStreams(port string) error {
	l, err := net.Listen("tcp4", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if err := serveStream(c); err != nil {
					fmt.Println("ERR serve:", err)
				}
			}()
		}
	}()
	return nil
}

func serveStream(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(streamTime)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	var what string
	var n int64
	if _, err := fmt.Sscanf(line, "%s %d\n", &what, &n); err != nil {
		return err
	}
	if what == "receive" {
		return zeros(c, n)
	}
	if _, err := io.CopyN(io.Discard, r, n); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c, "done")
	return err
}

func zeros(w io.Writer, n int64) error {
	b := make([]byte, 64<<10)
	for n > 0 {
		k, err := w.Write(b[:min(n, int64(len(b)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// stream sends or receives n bytes and says how long that took, until the last of them had
// arrived.
func stream(address, what string, n int64) (time.Duration, error) {
	c, err := net.DialTimeout("tcp4", address, streamTime)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(streamTime)); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := fmt.Fprintln(c, what, n); err != nil {
		return 0, err
	}
	switch what {
	case "receive":
		_, err = io.CopyN(io.Discard, c, n)
		return time.Since(start), err
	case "send":
		if err := zeros(c, n); err != nil {
			return 0, err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != "done" {
			err = fmt.Errorf("the other end says %q", line)
		}
		return time.Since(start), err
	}
	return 0, fmt.Errorf("%q: want send or receive", what)
}
