package command

import (
	"bytes"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSerial connects to serial ports of a guest by the real control domain.
func TestSerial(t *testing.T) {
	d := newDomain(t)
	d.core.Open("echo.0", func(c *net.UnixConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	d.ok("image", "upload", d.file("kernel", []byte("kernel")))
	d.ok("vm", "create", "demo", "--kernel", "kernel", "--serial-port", "echo.0", "--serial-port", "closed", "--start")
	if out := d.ok("vm", "get", "demo"); !regexp.MustCompile(`Serial ports: +echo.0, closed\n`).MatchString(out) {
		t.Errorf("vm get:\n%s", out)
	}
	d.fails(2, `--serial-port no\. 2 \(virtual_machine\.serial_ports\[1\]\): is "B"`, "vm", "create", "other", "--kernel", "kernel", "--serial-port", "a", "--serial-port", "B")
	d.fails(6, "connect to serial port closed of demo: No program", "vm", "connect", "demo", "--serial", "closed")
	d.fails(6, `demo has no serial port "nosuch"`, "vm", "connect", "demo", "--serial", "nosuch")
	d.fails(2, `--serial \(serial_port\): is "No"`, "vm", "connect", "demo", "--serial", "No")
	d.fails(2, `accepts 1 arg\(s\)`, "vm", "connect", "demo", "7", "--serial", "echo.0")
	d.fails(2, `accepts 2 arg\(s\)`, "vm", "connect", "demo")
	if out := d.ok("__complete", "vm", "connect", "demo", "--serial", ""); !strings.HasPrefix(out, "echo.0\nclosed\n") {
		t.Errorf("completion: %q", out)
	}
	want := bytes.Repeat([]byte("there and back"), 20_000)
	in, err := os.Open(d.file("request", want))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d.in = in
	if out := d.ok("vm", "connect", "demo", "--serial", "echo.0"); out != string(want) {
		t.Errorf("%d bytes came back, want %d", len(out), len(want))
	}
}
