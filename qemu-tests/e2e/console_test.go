package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// A console is a viewer of a guest's console.
type console struct {
	t      testing.TB
	id     string
	stream *connect.BidiStreamForClient[v1.ConsoleRequest, v1.ConsoleResponse]

	mu    sync.Mutex
	text  strings.Builder
	ended *v1.VirtualMachine
	err   error
	from  int // where the next expect starts
}

// console attaches to a guest's console.
func (h *host) console(t testing.TB, id string) *console {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &console{t: t, id: id, stream: h.VirtualMachines.Console(ctx)}
	if err := c.stream.Send(&v1.ConsoleRequest{Name: "virtualMachines/" + id}); err != nil {
		t.Fatalf("console of %s: %v", id, err)
	}
	go c.read()
	return c
}

func (c *console) read() {
	for {
		r, err := c.stream.Receive()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.text.Write(r.Output)
		if r.Ended != nil {
			c.ended = r.Ended
		}
		c.mu.Unlock()
	}
}

// expect waits for a whole line with want in it, after what was expected last,
// and returns it from want on.
func (c *console) expect(want string, d time.Duration) string {
	c.t.Helper()
	return c.must(want, true, d)
}

// prompt waits for want, which need not end a line.
func (c *console) prompt(want string, d time.Duration) {
	c.t.Helper()
	c.must(want, false, d)
}

func (c *console) must(want string, whole bool, d time.Duration) string {
	c.t.Helper()
	line, ok := c.look(want, whole, d)
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Fatalf("console of %s: no %q within %v (ended: %v, error: %v); all it said:\n%s", c.id, want, d, c.end(), c.err, c.text.String())
	}
	return line
}

// end says why the guest has ended, if it has. The caller holds mu.
func (c *console) end() string {
	if c.ended == nil {
		return "no"
	}
	return c.ended.StopReason.String() + " " + c.ended.StopMessage
}

// look is must without the failure.
func (c *console) look(want string, whole bool, d time.Duration) (string, bool) {
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		text := c.text.String()
		i := strings.Index(text[c.from:], want)
		end := -1
		if i >= 0 {
			end = strings.IndexByte(text[c.from+i:], '\n')
		}
		if i < 0 || whole && end < 0 {
			c.mu.Unlock()
			continue
		}
		if !whole {
			end = len(want)
		}
		rest := text[c.from+i : c.from+i+end]
		c.from += i + end
		c.mu.Unlock()
		return strings.TrimSpace(rest), true
	}
	return "", false
}

// say types a line.
func (c *console) say(line string) {
	c.t.Helper()
	if err := c.stream.Send(&v1.ConsoleRequest{Input: []byte(line + "\n")}); err != nil {
		c.t.Fatalf("console of %s: type %q: %v", c.id, line, err)
	}
}

// ask types a command of the small guest's and returns its answer.
func (c *console) ask(command string) string {
	c.t.Helper()
	name, _, _ := strings.Cut(command, " ")
	c.say(command)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if line, ok := c.look("OK "+name, true, 200*time.Millisecond); ok {
			return strings.TrimSpace(strings.TrimPrefix(line, "OK "+name))
		}
		if line, ok := c.look("ERR "+name, true, time.Millisecond); ok {
			c.t.Fatalf("guest %s: %s: %s", c.id, command, line)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Fatalf("guest %s: no answer to %q (ended: %v, error: %v); all it said:\n%s", c.id, command, c.end(), c.err, c.text.String())
	return ""
}
