package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Rescue is the root shell of a host that was started from the rescue variant
// of the image, on its second serial port.
type Rescue struct {
	mu sync.Mutex
	c  net.Conn
	n  int
}

// Rescue connects to the shell.
func (l *Lab) Rescue() (*Rescue, error) {
	c, err := net.Dial("unix", l.Path(RescueFile))
	if err != nil {
		return nil, fmt.Errorf("rescue shell: %w: start the lab with LAB_RESCUE=1", err)
	}
	return &Rescue{c: c}, nil
}

// Close closes the connection; the shell goes on.
func (r *Rescue) Close() error { return r.c.Close() }

// Run runs a command line and returns what it printed.
func (r *Rescue) Run(command string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	// The quotes keep the echo of the line from being taken for the marks themselves.
	begin, end := fmt.Sprintf("BEGIN%d:", r.n), fmt.Sprintf("END%d:", r.n)
	line := fmt.Sprintf("echo BEGIN''%d:; %s; echo END''%d:\n", r.n, command, r.n)
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		// A shell that was just started drops what came before: say it again.
		if _, err := r.c.Write([]byte(line)); err != nil {
			return "", fmt.Errorf("rescue shell: %w", err)
		}
		for quiet := time.Now().Add(10 * time.Second); time.Now().Before(quiet); {
			r.c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := r.c.Read(buf)
			got.Write(buf[:n])
			text := strings.ReplaceAll(got.String(), "\r", "")
			if _, after, ok := strings.Cut(text, begin+"\n"); ok {
				if out, _, ok := strings.Cut(after, end+"\n"); ok {
					return out, nil
				}
			}
			if err != nil && !isTimeout(err) {
				return "", fmt.Errorf("rescue shell: %w", err)
			}
		}
	}
	return "", fmt.Errorf("rescue shell: no answer to %q, only:\n%s", command, got.String())
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
