package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/console"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// consoleRetry is how long a console goes on trying while the host does not
// answer: a host restarts in less.
const consoleRetry = 2 * time.Minute

// viewFlags are the flags of `vm console`.
type viewFlags struct {
	noReplay, follow, quiet, stdin bool
	until                          string
	timeout                        time.Duration
}

const consoleLong = `Attach to the serial console of a virtual machine. What it printed last is shown
first. On a terminal, what is typed goes to the guest, and Ctrl-] detaches; the
guest goes on running. Several can look at and type into the same console.

Without a terminal on standard input, the output is copied until the guest ends:
the exit code is 0 if it has switched itself off, and 1 with the reason if not.
--stdin types what comes from standard input even so.

--until waits for the output to match a regular expression (RE2, without colours
and carriage returns) and ends with exit code 0 then; with 7 if --timeout passes
before, with 1 if the guest ends before.`

func (a *app) vmConsole() *cobra.Command {
	var fl viewFlags
	cmd := &cobra.Command{
		Use: "console NAME", Aliases: []string{"attach"}, Short: "Attach to the console of a virtual machine",
		Long: consoleLong,
		Example: `  ashlarctl vm console demo
  ashlarctl vm console demo --follow </dev/null >demo.log
  ashlarctl vm console demo --until 'login:' --timeout 2m`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		return a.console(ctx, h, args[0], &fl, cmd.Flags().Changed("retry"))
	})
	f := cmd.Flags()
	f.BoolVar(&fl.noReplay, "no-replay", false, "do not show what was printed before")
	f.BoolVar(&fl.follow, "follow", false, "stay when the guest is reset and started again")
	f.StringVar(&fl.until, "until", "", "end once the output matches this regular expression")
	f.DurationVar(&fl.timeout, "timeout", 0, "give up after this long (default: never)")
	f.BoolVar(&fl.quiet, "quiet", false, "with --until: show the last lines only, and only on failure")
	f.BoolVar(&fl.stdin, "stdin", false, "type what comes from standard input although it is no terminal")
	return cmd
}

// console shows the console as the flags say.
func (a *app) console(ctx context.Context, h *client.Host, id string, fl *viewFlags, retrySet bool) error {
	id = bareID(machines, id)
	ctx, cancel := within(ctx, fl.timeout)
	defer cancel()
	v := &console.Viewer{
		Client: h.VirtualMachines, Name: resource(machines, id),
		NoReplay: fl.noReplay, Follow: fl.follow, Output: a.Out, Retry: consoleRetry,
		Interrupted: func(err error) { a.note("ashlarctl: %s; trying again", fault.Sentence(err)) },
	}
	if retrySet {
		v.Retry = a.retry
	}
	if fl.until != "" {
		re, err := regexp.Compile(fl.until)
		if err != nil {
			return fault.With(fault.Usage, fmt.Errorf("--until: %w", err))
		}
		v.Until = re
	}
	last := &tail{}
	if fl.quiet {
		v.Output = last
	}
	vm, err := a.view(ctx, cancel, v, fl)
	err = a.viewed(ctx, id, fl, vm, err)
	if err != nil && fl.quiet {
		a.note("%s", last.text())
	}
	return err
}

// view runs v, on the terminal where there is one.
func (a *app) view(ctx context.Context, cancel func(), v *console.Viewer, fl *viewFlags) (*ashlarv1.VirtualMachine, error) {
	interactive := console.IsTerminal(a.In) && fl.until == ""
	if interactive || fl.stdin {
		v.Input = a.In
	}
	if !interactive {
		return v.Run(ctx)
	}
	a.note("Attached to %s; Ctrl-] detaches.", render.ID(v.Name))
	t, err := console.Raw(a.In, a.Out, cancel)
	if err != nil {
		return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	defer t.Restore()
	v.Output, v.Detach = t, true
	v.Interrupted = func(err error) { // the terminal is raw
		a.note("\r\nashlarctl: %s; trying again\r", fault.Sentence(err))
	}
	return v.Run(ctx)
}

// viewed says how the viewing ended.
func (a *app) viewed(ctx context.Context, id string, fl *viewFlags, vm *ashlarv1.VirtualMachine, err error) error {
	switch {
	case errors.Is(err, console.ErrMatched):
		return nil
	case errors.Is(err, console.ErrDetached):
		a.note("\nDetached; %s goes on running.\n  ashlarctl vm console %[1]s   attaches again\n  ashlarctl vm stop %[1]s      stops it", id)
		return nil
	case expired(ctx, err):
		if fl.until != "" {
			return fault.With(fault.TimedOut, fmt.Errorf("console of %s: %q has not appeared within %v", id, fl.until, fl.timeout))
		}
		return fault.With(fault.TimedOut, fmt.Errorf("console of %s: %v have passed", id, fl.timeout))
	case err != nil:
		return fmt.Errorf("console of %s: %w", id, err)
	}
	return a.ended(id, fl, vm)
}

// ended is what to say about a guest that has ended.
func (a *app) ended(id string, fl *viewFlags, vm *ashlarv1.VirtualMachine) error {
	reason := render.Reason(vm)
	if m := vm.GetStopMessage(); m != "" {
		reason += ": " + m
	}
	switch {
	case vm.GetStopReason() == ashlarv1.VirtualMachine_STOP_REASON_NOT_STARTED:
		return fault.With(fault.Conflict, fmt.Errorf("%s does not run: `ashlarctl vm start %[1]s` starts it", id))
	case fl.until != "":
		return fmt.Errorf("console of %s: the guest ended (%s) before %q appeared", id, reason, fl.until)
	case vm.GetStopReason() == ashlarv1.VirtualMachine_STOP_REASON_RESET:
		return fmt.Errorf("%s was reset by its guest and starts again: with --follow the console stays attached", id)
	case vm.GetDesiredRunning():
		return fmt.Errorf("%s was reset (%s) and starts again: with --follow the console stays attached", id, reason)
	case vm.GetStopReason() != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF:
		return fmt.Errorf("%s has stopped: %s", id, reason)
	}
	a.note("%s has switched itself off.", id)
	return nil
}

// tailSize is how much of the output a quiet console keeps.
const tailSize = 4 << 10

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailSize {
		t.b = bytes.Clone(t.b[len(t.b)-tailSize:])
	}
	return len(p), nil
}

// text is the end, from the start of a line on.
func (t *tail) text() []byte {
	b := t.b
	if len(b) > tailSize {
		b = b[len(b)-tailSize:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return bytes.TrimRight(b, "\r\n")
}

func (a *app) vmLogs() *cobra.Command {
	return &cobra.Command{
		Use: "logs NAME", Aliases: []string{"log"}, Short: "Print what a virtual machine has printed",
		Long:              "Print what a virtual machine has printed on its console, at most the last MiB; also after it has stopped.",
		Example:           "  ashlarctl vm logs demo",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			if err := a.logs(ctx, h, args[0]); err != nil {
				return fmt.Errorf("read the log of %s: %w", args[0], err)
			}
			return nil
		}),
	}
}

// logs copies the log, trying again where nothing has come yet.
func (a *app) logs(ctx context.Context, h *client.Host, name string) error {
	var back client.Backoff
	start := time.Now()
	for {
		n, err := copyLog(ctx, h, a.Out, name)
		if err == nil || n > 0 || !fault.Transient(err) || time.Since(start) >= a.retry {
			return err
		}
		if err := back.Wait(ctx); err != nil {
			return err
		}
	}
}

// copyLog writes the log to w.
func copyLog(ctx context.Context, h *client.Host, w io.Writer, name string) (n int, err error) {
	st, err := h.VirtualMachines.ReadLog(ctx, connect.NewRequest(&ashlarv1.ReadLogRequest{Name: resource(machines, name)}))
	if err != nil {
		return 0, err
	}
	defer func() { _ = st.Close() }() // st.Err tells
	for st.Receive() {
		m, err := w.Write(st.Msg().GetData())
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, st.Err()
}
