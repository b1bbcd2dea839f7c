package control_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

type tunnelStream = connect.BidiStreamForClient[ashlarv1.ConnectVirtualMachineRequest, ashlarv1.ConnectVirtualMachineResponse]

// withVsock makes a machine with a socket device, and starts it.
func (l *lab) withVsock(id string) *ashlarv1.VirtualMachine {
	l.t.Helper()
	l.upload("kernel", 10_000)
	l.upload("disk", 512*100)
	wanted := spec(id)
	wanted.VirtualMachine.Vsock = &ashlarv1.Vsock{}
	res, err := l.machines.CreateVirtualMachine(ctxOf(l.t), req(wanted))
	if err != nil {
		l.t.Fatal(err)
	}
	l.mustStart(res.Msg.Name)
	return res.Msg
}

// tunnel sends a first message.
func (l *lab) tunnel(first *ashlarv1.ConnectVirtualMachineRequest) *tunnelStream {
	l.t.Helper()
	return stream(l, l.machines.ConnectVirtualMachine, first)
}

// opened is tunnel for one that has to be opened.
func (l *lab) opened(name string, port uint32) *tunnelStream {
	l.t.Helper()
	s := l.tunnel(&ashlarv1.ConnectVirtualMachineRequest{Name: name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: port}})
	if res, err := s.Receive(); err != nil || len(res.Data) > 0 || res.End {
		l.t.Fatalf("first response: %v, %v", res, err)
	}
	return s
}

// rest reads what comes until the guest's end, or that of the call.
func rest(s *tunnelStream) (data []byte, end bool, err error) {
	for {
		res, err := s.Receive()
		if errors.Is(err, io.EOF) {
			return data, false, nil
		}
		if err != nil {
			return data, false, err
		}
		data = append(data, res.Data...)
		if res.End {
			return data, true, nil
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 7)
	}
	return b
}

func TestTunnel(t *testing.T) {
	l := newLab(t)
	vm := l.withVsock("demo")
	if got := l.get(vm.Name).Vsock.GetCid(); got != coretest.CID {
		t.Errorf("CID = %d, want %d", got, coretest.CID)
	}
	l.core.Listen(7, func(c *net.UnixConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	s := l.opened(vm.Name, 7)
	want := pattern(1 << 20)
	sent := make(chan error, 1)
	go func() {
		for rest := want; len(rest) > 0; rest = rest[32<<10:] {
			if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: rest[:32<<10]}); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseRequest()
	}()
	data, end, err := rest(s)
	if err != nil || end || !bytes.Equal(data, want) {
		t.Errorf("%d bytes came back, end %v, %v; want the %d that were sent, and the end of the call", len(data), end, err, len(want))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.log.String(), "call=VirtualMachineService/ConnectVirtualMachine"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no audit of the call")
		}
	}
}

// TestTunnelEnds tells the ways in which a guest ends a connection apart.
func TestTunnelEnds(t *testing.T) {
	l := newLab(t)
	vm := l.withVsock("demo")
	l.core.Listen(1, func(c *net.UnixConn) { // sends no more, and listens on
		defer c.Close()
		_, _ = c.Write([]byte("half"))
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	l.core.Listen(2, func(c *net.UnixConn) { // closes
		_, _ = c.Write([]byte("whole"))
		c.Close()
	})
	l.core.Listen(3, func(c *net.UnixConn) { // sends no more, and closes when it has been told something
		_ = c.CloseWrite()
		_, _ = io.ReadFull(c, make([]byte, 4))
		c.Close()
	})
	l.core.Listen(4, func(c *net.UnixConn) { // closes with something unread, which is a reset
		_, _ = io.ReadFull(c, make([]byte, 1))
		c.Close()
	})
	s := l.opened(vm.Name, 1)
	if data, end, err := rest(s); string(data) != "half" || !end || err != nil {
		t.Errorf("half: %q, %v, %v", data, end, err)
	}
	for range 10 { // it still takes something
		if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: pattern(64 << 10)}); err != nil {
			t.Fatal(err)
		}
	}
	s.CloseRequest()
	if data, end, err := rest(s); len(data) > 0 || end || err != nil {
		t.Errorf("after the client's end: %q, %v, %v", data, end, err)
	}
	if data, end, err := rest(l.opened(vm.Name, 2)); string(data) != "whole" || end || err != nil {
		t.Errorf("whole: %q, %v, %v", data, end, err)
	}
	s = l.opened(vm.Name, 3)
	if _, end, err := rest(s); !end || err != nil {
		t.Errorf("end: %v, %v", end, err)
	}
	if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: []byte("over")}); err != nil {
		t.Fatal(err)
	}
	if _, end, err := rest(s); end || err != nil {
		t.Errorf("closed after its end: %v, %v", end, err)
	}
	s = l.opened(vm.Name, 4)
	if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: []byte("reset")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := rest(s); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("reset: %v, want ABORTED", err)
	}
}

func TestTunnelRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withVsock("demo")
	res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("plain")))
	if err != nil {
		t.Fatal(err)
	}
	without := res.Msg
	l.mustStart(without.Name)
	l.core.Listen(7, func(c *net.UnixConn) { c.Close() })
	l.core.Listen(8, func(c *net.UnixConn) { _, _ = io.Copy(io.Discard, c); c.Close() })
	check := func(name string, first *ashlarv1.ConnectVirtualMachineRequest, code connect.Code, reason string) {
		t.Helper()
		t.Log(name)
		_, err := l.tunnel(first).Receive()
		wantError(t, err, code, reason, "")
	}
	check("no such machine", &ashlarv1.ConnectVirtualMachineRequest{Name: "virtualMachines/no", Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}, connect.CodeNotFound, "NO_SUCH_RESOURCE")
	check("no port", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name}, connect.CodeInvalidArgument, "INVALID_FIELD")
	check("any port", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 1<<32 - 1}}, connect.CodeInvalidArgument, "INVALID_FIELD")
	check("too much", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}, Data: pattern(64<<10 + 1)}, connect.CodeInvalidArgument, "INVALID_FIELD")
	check("no device", &ashlarv1.ConnectVirtualMachineRequest{Name: without.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}, connect.CodeFailedPrecondition, "NO_VSOCK")
	check("nobody listens", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 9}}, connect.CodeFailedPrecondition, "CONNECTION_REFUSED")

	s := l.opened(vm.Name, 8)
	if err := s.Send(&ashlarv1.ConnectVirtualMachineRequest{Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}); err != nil {
		t.Fatal(err)
	}
	_, _, err = rest(s)
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "first message")
	l.core.Refuse(hostcall.GuestConnect, &hostcall.Error{Code: hostcall.DeadlineExceeded, Message: "no answer"})
	check("no answer", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}, connect.CodeDeadlineExceeded, "CORE_REFUSED")
	l.core.Refuse(hostcall.GuestConnect, nil)

	for range 32 {
		l.opened(vm.Name, 8)
	}
	check("too many", &ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 8}}, connect.CodeResourceExhausted, "LIMIT_REACHED")
}

func TestTunnelNotRunning(t *testing.T) {
	l := newLab(t)
	vm := l.withVsock("demo")
	l.mustPause(vm.Name)
	_, err := l.tunnel(&ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}).Receive()
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: resume it")
	l.core.Exit(vm.Uid, "powered-off", "")
	l.until(vm.Name, "stopped", func(vm *ashlarv1.VirtualMachine) bool { return vm.State == ashlarv1.VirtualMachine_STATE_STOPPED })
	_, err = l.tunnel(&ashlarv1.ConnectVirtualMachineRequest{Name: vm.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}}).Receive()
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is stopped: start it")
	if cid := l.get(vm.Name).Vsock.GetCid(); cid != 0 {
		t.Errorf("a stopped machine has CID %d", cid)
	}
}
