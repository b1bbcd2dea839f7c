// Package console shows a guest's serial console in a terminal or a pipe, by
// ashlar.v1's Console stream.
package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"time"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

// detachKey is Ctrl-].
const detachKey = 0x1d

// quiet is how long a replay may pause before its end is taken for found.
const quiet = 500 * time.Millisecond

// Ways in which watching a console ends without an error.
var (
	// ErrDetached says that the user pressed Ctrl-].
	ErrDetached = errors.New("detached")
	// ErrMatched says that the pattern has appeared.
	ErrMatched = errors.New("the pattern has appeared")
)

// A Viewer shows a console.
type Viewer struct {
	Client ashlarv1connect.VirtualMachineServiceClient
	// Name is `virtualMachines/ID`.
	Name     string
	NoReplay bool
	// Follow stays when the guest starts again.
	Follow bool
	// Until ends it, with ErrMatched, once it matches the output.
	Until *regexp.Regexp
	// Input is typed at the console; nil for none.
	Input *os.File
	// Detach makes Ctrl-] in the input end it with ErrDetached.
	Detach bool
	Output io.Writer
	// Retry is how long to go on trying where the host stops answering.
	Retry time.Duration
	// Interrupted is told why the stream broke; another attempt follows.
	Interrupted func(error)

	mu     sync.Mutex
	stream *connect.BidiStreamForClient[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse] // guarded by mu; nil between streams
	splice splicer
	match  *matcher
}

// Run shows the console until the guest ends, and returns the guest then; or
// until the viewer leaves, with ErrDetached or ErrMatched.
func (v *Viewer) Run(ctx context.Context) (*ashlarv1.VirtualMachine, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if v.Until != nil {
		v.match = &matcher{re: v.Until}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if v.Input != nil {
		wg.Go(func() {
			if err := Pump(ctx, v.Input, v.typed); errors.Is(err, ErrDetached) {
				cancel(ErrDetached)
			}
		})
	}
	vm, err := v.attach(ctx)
	if errors.Is(context.Cause(ctx), ErrDetached) {
		return nil, ErrDetached
	}
	return vm, err
}

// attach streams, and streams again after breaks.
func (v *Viewer) attach(ctx context.Context) (*ashlarv1.VirtualMachine, error) {
	var back client.Backoff
	var since time.Time
	for {
		vm, got, err := v.once(ctx)
		if err == nil || !fault.Transient(err) || ctx.Err() != nil {
			return vm, err
		}
		if got || since.IsZero() {
			since = time.Now()
			back.Reset()
			v.Interrupted(err)
		}
		if time.Since(since) >= v.Retry {
			return nil, err
		}
		if err := back.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// once streams until the guest ends or the stream breaks; got says whether
// anything came.
func (v *Viewer) once(ctx context.Context) (vm *ashlarv1.VirtualMachine, got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := v.Client.Console(ctx)
	defer func() { _ = st.CloseResponse() }() // Receive tells
	again := len(v.splice.shown) > 0
	first := &ashlarv1.ConsoleRequest{Name: v.Name, NoReplay: v.NoReplay && !again, Follow: v.Follow}
	if err := st.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	v.use(st)
	defer v.use(nil)
	v.splice.reconnect()
	return v.receive(ctx, cancel, st)
}

// receive shows what comes.
func (v *Viewer) receive(ctx context.Context, cancel func(), st *connect.BidiStreamForClient[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]) (*ashlarv1.VirtualMachine, bool, error) {
	msgs, fail := make(chan *ashlarv1.ConsoleResponse), make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		cancel()
		// HTTP/2 looks at the context only once the request's body has ended.
		_ = st.CloseRequest()
	}()
	wg.Go(func() {
		for {
			m, err := st.Receive()
			if err != nil {
				fail <- err
				return
			}
			select {
			case msgs <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	got := false
	for {
		var pause <-chan time.Time
		if v.splice.looking {
			pause = time.After(quiet)
		}
		var out []byte
		var vm *ashlarv1.VirtualMachine
		select {
		case <-ctx.Done():
			return nil, got, ctx.Err()
		case err := <-fail:
			if errors.Is(err, io.EOF) {
				err = errors.New("the host ended the stream without saying why")
			}
			return nil, got, errors.Join(v.show(v.splice.flush()), err)
		case <-pause:
			out = v.splice.flush()
		case m := <-msgs:
			got = true
			out, vm = v.splice.take(m.GetOutput()), m.GetEnded()
		}
		if vm != nil {
			out = append(out, v.splice.flush()...)
		}
		if err := v.show(out); err != nil || vm != nil {
			return vm, true, err
		}
	}
}

// show writes output and looks for the pattern.
func (v *Viewer) show(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := v.Output.Write(p); err != nil {
		return fmt.Errorf("write the console's output: %w", err)
	}
	if v.match != nil && v.match.match(p) {
		return ErrMatched
	}
	return nil
}

// use makes st the stream that input goes to.
func (v *Viewer) use(st *connect.BidiStreamForClient[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stream = st
}

// typed sends input. What is typed while the host does not answer is lost, as
// on a cable that is not plugged in.
func (v *Viewer) typed(p []byte) error {
	end := -1
	if v.Detach {
		end = bytes.IndexByte(p, detachKey)
	}
	if end >= 0 {
		p = p[:end]
	}
	v.mu.Lock()
	st := v.stream
	v.mu.Unlock()
	if st != nil && len(p) > 0 {
		// A failure is seen by the receiving side, which has the reason.
		_ = st.Send(&ashlarv1.ConsoleRequest{Input: bytes.Clone(p)})
	}
	if end >= 0 {
		return ErrDetached
	}
	return nil
}
