// Package console writes what init has to say on every console of the machine
// and into the kernel's log.
//
// The consoles are those of the kernel command line, as
// /sys/class/tty/console/active lists them; the log is /dev/kmsg with the
// levels of syslog(2) (Documentation/ABI/testing/dev-kmsg).
package console

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// queueLength is how many lines wait for a slow console before lines are lost.
const queueLength = 512

// maxRecord bounds a line in the kernel's log (PRINTK_MESSAGE_MAX less a prefix).
const maxRecord = 900

// A Log takes messages. It never blocks on a device: a console that does not
// drain loses lines, not the boot.
type Log struct {
	kmsg  io.Writer
	ports []*port

	mu     sync.Mutex
	closed bool // the ports' queues
}

type port struct {
	queue chan []byte
	idle  chan struct{}
}

// New returns a Log that writes to kmsg and to each of the consoles.
func New(kmsg io.Writer, consoles ...io.Writer) *Log {
	l := &Log{kmsg: kmsg}
	for _, w := range consoles {
		p := &port{queue: make(chan []byte, queueLength), idle: make(chan struct{})}
		l.ports = append(l.ports, p)
		go p.drain(w)
	}
	return l
}

// Open returns a Log on the machine's devices. What cannot be opened is left
// out: there is nowhere to report it.
func Open() *Log {
	var consoles []io.Writer
	for _, name := range active("/sys/class/tty/console/active") {
		f, err := os.OpenFile(filepath.Join("/dev", name), os.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			consoles = append(consoles, f)
		}
	}
	var kmsg io.Writer = io.Discard
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		kmsg = f
	}
	return New(kmsg, consoles...)
}

// active lists the consoles in file; the kernel's own choice where it is missing.
func active(file string) []string {
	b, err := os.ReadFile(file)
	if names := strings.Fields(string(b)); err == nil && len(names) > 0 {
		return names
	}
	return []string{"console"}
}

func (p *port) drain(w io.Writer) {
	for line := range p.queue {
		_, _ = w.Write(line)
	}
	close(p.idle)
}

// Printf says something to people and to the kernel's log, as "area: message".
func (l *Log) Printf(area, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	l.Screen(fmt.Sprintf("[%9.3f] %s: %s", Uptime().Seconds(), area, message))
	l.Kernel("ashlar: ", area+": "+message)
}

// Screen writes lines to the consoles only.
func (l *Log) Screen(lines ...string) {
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(printable(line))
		b.WriteString("\r\n")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for _, p := range l.ports {
		select {
		case p.queue <- b.Bytes():
		default:
		}
	}
}

// Kernel writes one line to the kernel's log, below the level that the kernel
// itself shows on a console.
func (l *Log) Kernel(prefix, line string) {
	line = printable(line)
	if len(line) > maxRecord {
		line = line[:maxRecord] + " (cut)"
	}
	// One write is one record; the kernel refuses only what is too long.
	_, _ = io.WriteString(l.kmsg, "<6>"+prefix+line+"\n")
}

// Close waits until the consoles have shown everything, at most for limit.
// What is said after it goes to the kernel's log only.
func (l *Log) Close(limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for _, p := range l.ports {
		close(p.queue)
	}
	deadline := time.After(limit)
	for _, p := range l.ports {
		select {
		case <-p.idle:
		case <-deadline:
			return
		}
	}
}

// printable replaces what could drive a terminal: lines come from programs
// that talk to the network.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r >= 0xa0) {
			return r
		}
		return '?'
	}, s)
}

// Uptime is the time since kernel entry (CLOCK_BOOTTIME).
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
