package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

type consoleStream = connect.BidiStreamForClient[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]

// console opens a console.
func (l *lab) console(first *ashlarv1.ConsoleRequest) *consoleStream {
	l.t.Helper()
	return stream(l, l.machines.Console, first)
}

// stream opens a stream with its first message.
func stream[Req, Res any](l *lab, open func(context.Context) *connect.BidiStreamForClient[Req, Res], first *Req) *connect.BidiStreamForClient[Req, Res] {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	stream := open(ctx)
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) { // EOF: refused already, Receive says why
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		cancel()
		stream.CloseRequest()
		stream.CloseResponse()
	})
	return stream
}

// shows reads output until it holds want.
func shows(t *testing.T, s *consoleStream, want string) string {
	t.Helper()
	var out strings.Builder
	for !strings.Contains(out.String(), want) {
		res, err := s.Receive()
		if err != nil || res.Ended != nil {
			t.Fatalf("console: %v, %v after %q, want %q", res, err, out.String(), want)
		}
		out.Write(res.Output)
	}
	return out.String()
}

// ends reads to the end, which has to be a good one.
func ends(t *testing.T, s *consoleStream) (output string, vm *ashlarv1.VirtualMachine) {
	t.Helper()
	var out strings.Builder
	for {
		res, err := s.Receive()
		if errors.Is(err, io.EOF) && vm != nil {
			return out.String(), vm
		}
		if err != nil {
			t.Fatalf("console: %v after %q", err, out.String())
		}
		if vm != nil {
			t.Errorf("something after the end: %v", res)
		}
		out.Write(res.Output)
		vm = res.Ended
	}
}

func TestConsole(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Print(vm.Uid, "booting\n")
	one := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name})
	shows(t, one, "booting\n") // replay
	two := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name, NoReplay: true, Input: []byte("ro")})
	for l.core.Typed(vm.Uid) != "ro" {
		time.Sleep(5 * time.Millisecond)
	}
	l.core.Print(vm.Uid, "login: ")
	shows(t, one, "login: ")
	if got := shows(t, two, "login: "); got != "login: " {
		t.Errorf("without replay: %q", got)
	}
	for _, in := range []string{"ot", "\n"} {
		if err := two.Send(&ashlarv1.ConsoleRequest{Input: []byte(in)}); err != nil {
			t.Fatal(err)
		}
	}
	for l.core.Typed(vm.Uid) != "root\n" {
		time.Sleep(5 * time.Millisecond)
	}
	two.CloseRequest() // goes on showing
	l.core.Print(vm.Uid, "bye")
	l.core.Exit(vm.Uid, "powered-off", "")
	for _, s := range []*consoleStream{one, two} {
		out, end := ends(t, s)
		if out != "bye" || end.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF || end.State != ashlarv1.VirtualMachine_STATE_STOPPED || end.DesiredRunning {
			t.Errorf("end: %q, %v", out, end)
		}
	}
	// Of one that has stopped, the last output is left.
	out, end := ends(t, l.console(&ashlarv1.ConsoleRequest{Name: vm.Name}))
	if out != "booting\nlogin: bye" || end.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF {
		t.Errorf("afterwards: %q, %v", out, end)
	}
	log, err := l.machines.ReadLog(ctxOf(t), req(&ashlarv1.ReadLogRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for log.Receive() {
		all.Write(log.Msg().Data)
	}
	if log.Close(); log.Err() != nil || all.String() != "booting\nlogin: bye" {
		t.Errorf("log: %q, %v", all.String(), log.Err())
	}
}

func TestConsoleFollow(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	follow := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name, Follow: true})
	leave := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name})
	for l.core.Viewers(vm.Uid) != 2 {
		time.Sleep(5 * time.Millisecond)
	}
	l.core.Print(vm.Uid, "one ")
	shows(t, follow, "one ")
	release := l.core.Hold(hostcall.GuestStart)
	l.core.Exit(vm.Uid, "reset", "")
	release()
	if out, _ := ends(t, leave); out != "one " {
		t.Errorf("without follow: %q", out)
	}
	l.until(vm.Name, "running again", func(vm *ashlarv1.VirtualMachine) bool {
		return l.core.Calls(hostcall.GuestStart) == 2 && vm.State == ashlarv1.VirtualMachine_STATE_RUNNING
	})
	l.core.Print(vm.Uid, "two ")
	if got := shows(t, follow, "two "); got != "two " {
		t.Errorf("after the reset: %q", got)
	}
	l.core.Exit(vm.Uid, "halted", "")
	if _, end := ends(t, follow); end.StopReason != ashlarv1.VirtualMachine_STOP_REASON_HALTED {
		t.Errorf("end: %v", end)
	}
}

// A console opened while a machine is being started waits for it, and survives the
// restart of core.
func TestConsoleEarly(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	release := l.core.Hold(hostcall.GuestStart)
	l.core.Refuse(hostcall.GuestConsole, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "not up yet"})
	start, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	s := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name})
	time.Sleep(50 * time.Millisecond)
	l.core.Refuse(hostcall.GuestConsole, nil)
	release()
	l.wait(start.Msg.Name)
	l.core.Print(vm.Uid, "up")
	shows(t, s, "up")
	l.core.Stop()
	l.core.Print(vm.Uid, "still")
	shows(t, s, "still")
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	l.core.Exit(vm.Uid, "powered-off", "")
	ends(t, s)
}

func TestConsoleWrong(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	_, err := l.console(&ashlarv1.ConsoleRequest{}).Receive()
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "name")
	_, err = l.console(&ashlarv1.ConsoleRequest{Name: "virtualMachines/none"}).Receive()
	wantError(t, err, connect.CodeNotFound, "NO_SUCH_RESOURCE", "none")
	large := &ashlarv1.ConsoleRequest{Name: vm.Name, Input: make([]byte, 64<<10+1)}
	_, err = l.console(large).Receive()
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "input")
	s := l.console(&ashlarv1.ConsoleRequest{Name: vm.Name})
	if err := s.Send(&ashlarv1.ConsoleRequest{Name: "virtualMachines/other"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Receive()
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "another stream")

	// core counts a viewer that has gone until it next has output for it.
	gone := l.core.Viewers(vm.Uid)
	var all []*consoleStream
	for range 16 {
		all = append(all, l.console(&ashlarv1.ConsoleRequest{Name: vm.Name}))
	}
	for l.core.Viewers(vm.Uid) < gone+16 {
		time.Sleep(5 * time.Millisecond)
	}
	_, err = l.console(&ashlarv1.ConsoleRequest{Name: vm.Name}).Receive()
	wantError(t, err, connect.CodeResourceExhausted, "LIMIT_REACHED", "16 viewers")
	_ = all
}
