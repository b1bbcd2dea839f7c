package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// watchCommand shows changes as they happen.
func (a *app) watchCommand() *cobra.Command {
	collections := []string{machines, images, operations, devices, links}
	cmd := &cobra.Command{
		Use: "watch [COLLECTION...]", Short: "Show changes as they happen",
		Long:      "Show the present state of virtual machines, images, operations, PCI devices and links (or of the collections named), then every change, until interrupted. With -o json each change is a line, with -o yaml a document.",
		Example:   "  ashlarctl watch\n  ashlarctl watch virtualMachines -o json",
		Args:      cobra.OnlyValidArgs,
		ValidArgs: collections,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			err := a.watch(ctx, h, args, func(m *ashlarv1.WatchResponse) error {
				if a.format != render.Table {
					return render.Line(a.Out, a.format, m)
				}
				_, err := fmt.Fprint(a.Out, watchLine(m))
				return err
			})
			return fmt.Errorf("watch: %w", err)
		}),
	}
	a.formatFlag(cmd)
	return cmd
}

// watch gives every change to take until that fails, and goes on after breaks
// of the stream.
func (a *app) watch(ctx context.Context, h *client.Host, collections []string, take func(*ashlarv1.WatchResponse) error) error {
	var (
		back  client.Backoff
		token string
		since time.Time
	)
	for {
		got, err := a.watchOnce(ctx, h, &ashlarv1.WatchRequest{Collections: collections, ResumeToken: token}, func(m *ashlarv1.WatchResponse) error {
			if t := m.GetResumeToken(); t != "" {
				token = t
			}
			return take(m)
		})
		if connect.CodeOf(err) == connect.CodeAborted { // fell behind: from the start
			token = ""
		} else if !fault.Transient(err) || ctx.Err() != nil {
			return err
		}
		if got || since.IsZero() {
			since = time.Now()
			back.Reset()
		}
		if time.Since(since) >= max(a.retry, consoleRetry) {
			return err
		}
		if err := back.Wait(ctx); err != nil {
			return err
		}
	}
}

// watchOnce gives what one stream brings to take; got says whether that was
// anything. A stream that ends by itself is an error that a retry may help.
func (a *app) watchOnce(ctx context.Context, h *client.Host, req *ashlarv1.WatchRequest, take func(*ashlarv1.WatchResponse) error) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := h.Watch.Watch(ctx, connect.NewRequest(req))
	if err != nil {
		return false, err
	}
	defer func() { _ = st.Close() }() // st.Err tells
	for st.Receive() {
		got = true
		if err := take(st.Msg()); err != nil {
			return got, err
		}
	}
	if st.Err() == nil {
		return got, connect.NewError(connect.CodeUnavailable, errors.New("the host ended the stream"))
	}
	return got, st.Err()
}

// watchLine is a change as a line of text; that everything has been shown is
// none.
func watchLine(m *ashlarv1.WatchResponse) string {
	var name, text string
	switch r := m.GetResource().(type) {
	case *ashlarv1.WatchResponse_VirtualMachine:
		name, text = r.VirtualMachine.GetName(), render.State(r.VirtualMachine)
	case *ashlarv1.WatchResponse_Image:
		name, text = r.Image.GetName(), render.Image(r.Image).Lines[1][1]
	case *ashlarv1.WatchResponse_Operation:
		name, text = r.Operation.GetName(), r.Operation.GetKind()+" "+r.Operation.GetTarget()+" "+render.OperationState(r.Operation)
	case *ashlarv1.WatchResponse_PciDevice:
		name, text = r.PciDevice.GetName(), render.PciDeviceLine(r.PciDevice)
	case *ashlarv1.WatchResponse_Link:
		name, text = r.Link.GetName(), render.LinkLine(r.Link)
	default:
		return ""
	}
	if m.GetKind() == ashlarv1.WatchResponse_KIND_DELETED {
		text = "deleted"
	}
	at := ""
	if t := m.GetTime(); t != nil {
		at = t.AsTime().UTC().Format(time.DateTime) + "Z  "
	}
	return fmt.Sprintf("%s%-40s  %s\n", at, name, text)
}

// States that `vm wait` waits for.
var (
	waitFor = map[string]ashlarv1.VirtualMachine_State{
		"running": ashlarv1.VirtualMachine_STATE_RUNNING,
		"paused":  ashlarv1.VirtualMachine_STATE_PAUSED,
		"stopped": ashlarv1.VirtualMachine_STATE_STOPPED,
	}
	waitStates = []string{"running", "paused", "stopped"}
)

func (a *app) vmWait() *cobra.Command {
	var state string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait NAME...", Short: "Wait until virtual machines run, are paused, or have stopped",
		Long:              "Wait until all of these virtual machines run, are paused, or have stopped. Ends with exit code 7 where --timeout passes before.",
		Example:           "  ashlarctl vm wait demo --for stopped --timeout 5m\n  ashlarctl vm wait demo --for paused",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeMachines(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			want, ok := waitFor[state]
			if !ok {
				return fault.With(fault.Usage, fmt.Errorf("--for %s: want running, paused or stopped", state))
			}
			reached := func(vm *ashlarv1.VirtualMachine) bool { return vm.GetState() == want }
			ctx, cancel := within(ctx, timeout)
			defer cancel()
			return late(ctx, fmt.Sprintf("%s %s", strings.Join(names, ", "), state), a.waitMachines(ctx, h, names, reached), timeout)
		}),
	}
	cmd.Flags().StringVar(&state, "for", "stopped", "state to wait for: running, paused or stopped")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long (default: never)")
	a.must(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(waitStates, cobra.ShellCompDirectiveNoFileComp)))
	a.formatFlag(cmd)
	return cmd
}

// errAll ends a watch: all have reached the state.
var errAll = errors.New("all are there")

// waitMachines waits for all names by watching.
func (a *app) waitMachines(ctx context.Context, h *client.Host, names []string, reached func(*ashlarv1.VirtualMachine) bool) error {
	missing := map[string]bool{}
	for _, n := range names {
		missing[resource(machines, n)] = true
	}
	seen := map[string]bool{}
	err := a.watch(ctx, h, []string{machines}, func(m *ashlarv1.WatchResponse) error {
		if m.GetReset_() {
			clear(seen)
		}
		if m.GetSynced() {
			for n := range missing {
				if !seen[n] {
					return fault.With(fault.NotFound, fmt.Errorf("there is no virtual machine %s", render.ID(n)))
				}
			}
		}
		vm := m.GetVirtualMachine()
		if vm == nil || !missing[vm.GetName()] {
			return nil
		}
		seen[vm.GetName()] = true
		if m.GetKind() == ashlarv1.WatchResponse_KIND_DELETED {
			return fault.With(fault.NotFound, fmt.Errorf("%s has been deleted", render.ID(vm.GetName())))
		}
		if !reached(vm) {
			return nil
		}
		delete(missing, vm.GetName())
		a.say("%s: %s", render.ID(vm.GetName()), render.State(vm))
		if len(missing) == 0 {
			return errAll
		}
		return nil
	})
	if !errors.Is(err, errAll) {
		return fmt.Errorf("wait: %w", err)
	}
	if a.format == render.Table {
		return nil
	}
	return show(a, names, render.VirtualMachine, func(n string) (*ashlarv1.VirtualMachine, error) { return getMachine(ctx, h, n) })
}
