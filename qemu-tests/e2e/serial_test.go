package e2e

import (
	"io"
	"os"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// connectSerial is connectPort for a serial port.
func (h *host) connectSerial(t *testing.T, id, name string) *connection {
	t.Helper()
	return h.connectPort(t, id, "--serial="+name)
}

// greeted reads what the guest says first.
func (c *connection) greeted() {
	c.t.Helper()
	b := make([]byte, len("hello\n"))
	if _, err := io.ReadFull(c.out, b); err != nil || string(b) != "hello\n" {
		c.t.Fatalf("greeted with %q, %v; %s", b, err, c.errs.String())
	}
}

// interrupted ends the command by hand.
func (c *connection) interrupted() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	if code, said := c.ends(); code != 130 {
		c.t.Errorf("interrupted: exit code %d, %q", code, said)
	}
}

// TestSerialPorts connects to serial ports of a guest: through a pause, and an end of core;
// one client at a time, and not where no program has the port open.
func TestSerialPorts(t *testing.T) {
	h := sharedHost(t)
	const agent, other = "org.qemu.guest_agent.0", "other"
	vm := testVM("")
	vm.NetworkInterfaces, vm.SerialPorts = nil, []string{agent, other}
	h.create(t, "ports", vm)
	t.Cleanup(func() { h.remove(t, "ports") })
	h.boot(t, "ports")
	con := h.console(t, "ports")
	con.expect("TESTGUEST ready", patience)
	if code, said := h.connectSerial(t, "ports", other).ends(); code != 6 || !strings.Contains(said, "No program in the guest has the serial port other open") {
		t.Errorf("a port that is not open: exit code %d, %q", code, said)
	}
	con.ask("port-echo " + agent)
	con.say("hvc works")
	con.expect("TESTGUEST hvc0 works", patience)
	con.expect("OK hvc", patience)

	data := make([]byte, 256<<10)
	for i := range data {
		data[i] = byte(i * i >> 9)
	}
	c := h.connectSerial(t, "ports", agent)
	c.greeted()
	c.echoes(data[:128<<10])
	if code, said := h.connectSerial(t, "ports", agent).ends(); code != 6 || !strings.Contains(said, "has a connection already") {
		t.Errorf("a second client: exit code %d, %q", code, said)
	}
	h.mustCtl(t, "vm", "pause", "ports")
	if code, said := h.connectSerial(t, "ports", other).ends(); code != 6 || !strings.Contains(said, "is paused") {
		t.Errorf("a paused guest: exit code %d, %q", code, said)
	}
	h.resumedBehind(t, "ports", func() { c.echoes(data[128<<10 : 192<<10]) })
	h.killed(t, "ashlar-core")
	c.echoes(data[192<<10:])
	c.interrupted()
	con.expect("TESTGUEST port echoed 262144 bytes", patience)
	h.inState(t, "ports", v1.VirtualMachine_STATE_RUNNING) // adopted
	n := h.counters(t, "ports").Devices
	if n["console.port1.received_bytes"] != 256<<10 || n["console.port1.sent_bytes"] != 256<<10+6 || n["console.port1.connections"] != 1 || n["console.port2.connections"] != 0 {
		t.Errorf("counters: %v", n)
	}

	con.ask("port-say " + other + " farewell")
	c = h.connectSerial(t, "ports", other)
	if b, err := io.ReadAll(c.out); err != nil || string(b) != "farewell" {
		t.Errorf("before the guest closes: %q, %v; %s", b, err, c.errs.String())
	}
	if code, said := c.ends(); code != 0 || said != "" {
		t.Errorf("the guest has closed: exit code %d, %q", code, said)
	}

	c = h.connectSerial(t, "ports", agent)
	c.greeted()
	c.echoes(data[:1000])
	h.mustCtl(t, "vm", "reset", "ports")
	if code, said := c.ends(); code != 0 || said != "" {
		t.Errorf("reset: exit code %d, %q", code, said)
	}
	h.console(t, "ports").expect("TESTGUEST ready", patience)
}
