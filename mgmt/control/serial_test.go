package control_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

const agentPort = "org.qemu.guest_agent.0"

func serialFirst(name, port string) *ashlarv1.ConnectVirtualMachineRequest {
	return &ashlarv1.ConnectVirtualMachineRequest{Name: name, Target: &ashlarv1.ConnectVirtualMachineRequest_SerialPort{SerialPort: port}}
}

// TestSerialPorts connects to serial ports of a machine.
func TestSerialPorts(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 10_000)
	l.upload("disk", 512*100)
	wanted := spec("demo")
	wanted.VirtualMachine.SerialPorts = []string{agentPort, "closed"}
	res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wanted))
	if err != nil {
		t.Fatal(err)
	}
	vm := res.Msg
	l.mustStart(vm.Name)
	if got := l.get(vm.Name).SerialPorts; !slices.Equal(got, wanted.VirtualMachine.SerialPorts) {
		t.Errorf("serial_ports = %q", got)
	}
	if g, _ := l.core.Spec(vm.Uid); !slices.Equal(g.SerialPorts, wanted.VirtualMachine.SerialPorts) {
		t.Errorf("core is told %q", g.SerialPorts)
	}
	l.core.Open(agentPort, func(c *net.UnixConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	check := func(port string, code connect.Code, reason, text string) {
		t.Helper()
		_, err := l.tunnel(serialFirst(vm.Name, port)).Receive()
		wantError(t, err, code, reason, text)
	}
	s := l.tunnel(serialFirst(vm.Name, agentPort))
	if res, err := s.Receive(); err != nil || len(res.Data) > 0 {
		t.Fatalf("first response: %v, %v", res, err)
	}
	check(agentPort, connect.CodeFailedPrecondition, "PORT_IN_USE", "a connection already")
	check("closed", connect.CodeFailedPrecondition, "CONNECTION_REFUSED", "No program")
	check("nosuch", connect.CodeFailedPrecondition, "NO_SERIAL_PORT", "has no serial port")
	check("", connect.CodeInvalidArgument, "INVALID_FIELD", "serial_port")
	check("../x", connect.CodeInvalidArgument, "INVALID_FIELD", "serial_port")
	if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: []byte("there and back")}); err != nil {
		t.Fatal(err)
	}
	s.CloseRequest()
	if data, end, err := rest(s); string(data) != "there and back" || end || err != nil {
		t.Errorf("%q, %v, %v", data, end, err)
	}

	s = l.tunnel(serialFirst(vm.Name, agentPort))
	if _, err := s.Receive(); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(serialFirst("", "closed")); err != nil {
		t.Fatal(err)
	}
	_, _, err = rest(s)
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "first message")
	l.mustPause(vm.Name)
	check(agentPort, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: resume it")
}

func TestSerialPortsRefused(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 10_000)
	l.upload("disk", 512*100)
	for ports, field := range map[string]string{
		"a,b,c,d,e,f,g,h": "virtual_machine.serial_ports: has 8",
		"a,":              "virtual_machine.serial_ports[1]: is",
		"a,b,a":           "virtual_machine.serial_ports[2]: is",
		"A":               "virtual_machine.serial_ports[0]: is",
	} {
		wanted := spec("demo")
		wanted.VirtualMachine.SerialPorts = strings.Split(ports, ",")
		_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(wanted))
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", field)
	}
}
