package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/initramfs"
)

// A console reads what a guest prints, with the time of each line.
type console struct {
	rw    io.ReadWriter
	lines chan line

	mu   sync.Mutex
	seen bytes.Buffer
}

// A line is text and when its first byte came.
type line struct {
	text string
	at   time.Time
}

func newConsole(rw io.ReadWriter) *console {
	c := &console{rw: rw, lines: make(chan line, 1000)}
	go c.read()
	return c
}

func (c *console) read() {
	defer close(c.lines)
	buf := make([]byte, 4096)
	var now line
	for {
		n, err := c.rw.Read(buf)
		at := time.Now()
		c.mu.Lock()
		c.seen.Write(buf[:n])
		c.mu.Unlock()
		for _, b := range buf[:n] {
			switch {
			case b == '\n':
				c.lines <- now
				now = line{}
			case b != '\r':
				if now.text == "" {
					now.at = at
				}
				now.text += string(rune(b))
			}
		}
		if err != nil {
			return
		}
	}
}

// expect waits for a line that has one of the words, and returns it.
func (c *console) expect(limit time.Duration, words ...string) (line, error) {
	timeout := time.After(limit)
	for {
		select {
		case l, ok := <-c.lines:
			if !ok {
				return line{}, fmt.Errorf("the console ended before %q; it showed %q", words, c.all())
			}
			for _, w := range words {
				if strings.Contains(l.text, w) {
					return l, nil
				}
			}
		case <-timeout:
			return line{}, fmt.Errorf("no %q in %v; the console showed %q", words, limit, c.all())
		}
	}
}

// all is the end of what was printed.
func (c *console) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen.String()
	return s[max(0, len(s)-1500):]
}

func (c *console) started(limit time.Duration) (time.Time, error) {
	l, err := c.expect(limit, initramfs.Started)
	return l.at, err
}

var answerRE = regexp.MustCompile(`OK \S+ ops=(\d+) seconds=([0-9.]+)`)

// command has the guest do something within a time, and returns how many and how long.
func (c *console) command(text string, limit time.Duration) (ops, seconds float64, err error) {
	if _, err := io.WriteString(c.rw, text+"\n"); err != nil {
		return 0, 0, err
	}
	word, _, _ := strings.Cut(text, " ")
	l, err := c.expect(limit, "OK "+word+" ", "ERR ")
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", text, err)
	}
	m := answerRE.FindStringSubmatch(l.text)
	if m == nil {
		return 0, 0, fmt.Errorf("%s: the guest says %q", text, l.text)
	}
	ops, _ = strconv.ParseFloat(m[1], 64)
	seconds, _ = strconv.ParseFloat(m[2], 64)
	if ops == 0 || seconds == 0 {
		return 0, 0, fmt.Errorf("%s: nothing was done: %q", text, l.text)
	}
	return ops, seconds, nil
}
