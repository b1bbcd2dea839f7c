package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// A connection is an `ashlarctl vm connect` that runs.
type connection struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	errs bytes.Buffer
}

func (h *host) connectPort(t *testing.T, id, port string) *connection {
	t.Helper()
	c := &connection{t: t, cmd: exec.CommandContext(within(t, 10*time.Minute), filepath.Join(top, "out/bin/ashlarctl"), "vm", "connect", id, port)}
	c.cmd.Env = append(os.Environ(), "ASHLAR_CONFIG_DIR="+h.config, "ASHLAR_CONTEXT=e2e")
	c.cmd.Stderr = &c.errs
	var err, err2 error
	c.in, err = c.cmd.StdinPipe()
	c.out, err2 = c.cmd.StdoutPipe()
	if err := errors.Join(err, err2, c.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	return c
}

// echoes sends b and reads it back.
func (c *connection) echoes(b []byte) {
	c.t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := c.in.Write(b)
		sent <- err
	}()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c.out, got); err != nil {
		c.t.Fatalf("%v; %s", err, c.errs.String())
	}
	if err := <-sent; err != nil || !bytes.Equal(got, b) {
		c.t.Fatalf("%d bytes came back changed, or %v", len(b), err)
	}
}

// ends waits for the end, and returns the exit code and what was said.
func (c *connection) ends() (int, string) {
	c.t.Helper()
	rest, err := io.ReadAll(c.out)
	if err != nil || len(rest) > 0 {
		c.t.Errorf("at the end came %d bytes more, %v", len(rest), err)
	}
	err = c.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return c.cmd.ProcessState.ExitCode(), c.errs.String()
}

// resumedBehind resumes a guest while do runs, which has to wait for it.
func (h *host) resumedBehind(t *testing.T, id string, do func()) {
	t.Helper()
	resumed := make(chan string, 1)
	go func() {
		out, err := h.ctl("vm", "resume", id)
		if err == nil {
			out = ""
		}
		resumed <- out
	}()
	do()
	if out := <-resumed; out != "" {
		t.Fatal(out)
	}
}

// TestVsock connects to ports of a guest: through a pause, and an end of core; not where
// nobody listens. The guest reaches nobody on the host.
func TestVsock(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("")
	vm.NetworkInterfaces, vm.Vsock = nil, &v1.Vsock{}
	h.create(t, "vsock", vm)
	t.Cleanup(func() { h.remove(t, "vsock") })
	h.boot(t, "vsock")
	con := h.console(t, "vsock")
	con.expect("TESTGUEST ready", patience)
	con.ask("vsock-echo 7000")
	cid := h.vm(t, "vsock").Vsock.Cid
	if cid < 3 {
		t.Fatalf("CID %d", cid)
	}
	if code, said := h.connectPort(t, "vsock", "7001").ends(); code != 6 || !strings.Contains(said, "Nobody listens on port 7001") {
		t.Errorf("port 7001: exit code %d, %q", code, said)
	}

	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i * i >> 9)
	}
	c := h.connectPort(t, "vsock", "7000")
	c.echoes(data[:256<<10])
	h.mustCtl(t, "vm", "pause", "vsock")
	if code, said := h.connectPort(t, "vsock", "7000").ends(); code != 6 || !strings.Contains(said, "is paused") {
		t.Errorf("a paused guest: exit code %d, %q", code, said)
	}
	h.resumedBehind(t, "vsock", func() { c.echoes(data[256<<10 : 512<<10]) })
	h.killed(t, "ashlar-core")
	c.echoes(data[512<<10:])
	if err := c.in.Close(); err != nil {
		t.Error(err)
	}
	if code, said := c.ends(); code != 0 || said != "" {
		t.Errorf("at the end: exit code %d, %q", code, said)
	}
	con.expect(fmt.Sprintf("TESTGUEST vsock echoed %d bytes: <nil>", len(data)), patience)
	h.inState(t, "vsock", v1.VirtualMachine_STATE_RUNNING) // adopted
	n := h.counters(t, "vsock").Devices
	if kicks, known := n["vsock.kicks"]; !known || kicks != 0 || n["vsock.trapped_kicks"] != 0 || n["vsock.errors"] != 0 {
		t.Errorf("counters: %v", n)
	}

	con.say("vsock-connect 2 22")
	con.expect("ERR vsock-connect", patience)

	c = h.connectPort(t, "vsock", "7000")
	c.echoes(data[:1000])
	h.mustCtl(t, "vm", "reset", "vsock")
	if code, said := c.ends(); code != 6 || !strings.Contains(said, "the connection to port 7000 of virtualMachines/vsock has broken") {
		t.Errorf("reset: exit code %d, %q", code, said)
	}
	h.console(t, "vsock").expect("TESTGUEST ready", patience)
	if now := h.vm(t, "vsock").Vsock.Cid; now != cid {
		t.Errorf("CID %d after the reset, %d before", now, cid)
	}
}
