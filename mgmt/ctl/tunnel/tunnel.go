// Package tunnel carries streams of bytes to ports of guests and back, by ashlar.v1's
// ConnectVirtualMachine.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
)

// A Target is a port of a guest.
type Target struct {
	Client ashlarv1connect.VirtualMachineServiceClient
	// Name is `virtualMachines/ID`.
	Name string
	Port uint32
	// Serial is the name of a serial port, in place of Port.
	Serial string
}

// String is what messages call the port.
func (t Target) String() string {
	if t.Serial != "" {
		return "serial port " + t.Serial
	}
	return fmt.Sprintf("port %d", t.Port)
}

// first is the first message.
func (t Target) first() *ashlarv1.ConnectVirtualMachineRequest {
	if t.Serial != "" {
		return &ashlarv1.ConnectVirtualMachineRequest{Name: t.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_SerialPort{SerialPort: t.Serial}}
	}
	return &ashlarv1.ConnectVirtualMachineRequest{Name: t.Name, Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: t.Port}}
}

// An Input gives what it reads to send, until it ends, which is no error or io.EOF, send
// fails or the context is done.
type Input func(ctx context.Context, send func([]byte) error) error

// An Output takes what the guest sends.
type Output interface {
	io.Writer
	// CloseWrite says that the guest sends no more.
	CloseWrite() error
}

type stream = connect.BidiStreamForClient[ashlarv1.ConnectVirtualMachineRequest, ashlarv1.ConnectVirtualMachineResponse]

// Run connects, and carries what in gives and the guest sends, until the guest has closed
// the connection, or both directions have ended. open is called once it stands.
func (t Target) Run(ctx context.Context, in Input, out Output, open func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	st := t.Client.ConnectVirtualMachine(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	// HTTP/2 looks at the context only once the request's body has ended.
	stop := context.AfterFunc(ctx, func() { _ = st.CloseRequest() })
	defer func() {
		cancel(nil)
		if stop() {
			_ = st.CloseRequest()
		}
		_ = st.CloseResponse() // Receive tells
	}()
	if err := st.Send(t.first()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := st.Receive(); err != nil {
		return whole(err)
	}
	open()
	sending.Go(func() {
		err := in(ctx, func(p []byte) error { return st.Send(&ashlarv1.ConnectVirtualMachineRequest{Data: p}) })
		if err == nil || errors.Is(err, io.EOF) { // of the input, or of a stream that Receive knows more of
			_ = st.CloseRequest()
			return
		}
		cancel(err)
	})
	err := receive(st, out)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// receive writes what comes until the host ends the stream.
func receive(st *stream, out Output) error {
	for {
		m, err := st.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := out.Write(m.GetData()); err != nil {
			return err
		}
		if m.GetEnd() {
			if err := out.CloseWrite(); err != nil {
				return err
			}
		}
	}
}

// whole is err, or that the stream ended before it began.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the host ended the stream without saying why")
	}
	return err
}
