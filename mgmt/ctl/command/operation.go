package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// Times for which a call waits for an operation before it asks again.
const (
	waitShort = time.Second // where somebody looks at the progress
	waitLong  = 30 * time.Second
)

// pageSize is how many resources are asked for at once.
const pageSize = 1000

// operationCommand holds what manages operations.
func (a *app) operationCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List operations",
		Long:    "List the operations of the last day, newest first.",
		Example: "  ashlarctl operation list",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			ops, err := listOperations(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, ops, func() *render.Rows { return render.Operations(ops) })
		}),
	}
	get := &cobra.Command{
		Use: "get NAME...", Short: "Show operations",
		Long:              "Show operations: what they do, how far they are, why they failed.",
		Example:           "  ashlarctl operation get 4f1c",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeOperations(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return show(a, names, render.Operation, func(n string) (*ashlarv1.Operation, error) {
				req := connect.NewRequest(&ashlarv1.GetOperationRequest{Name: resource(operations, n)})
				return message(h.Operations.GetOperation(ctx, req))("get operation " + n)
			})
		}),
	}
	a.formatFlag(list, get)
	return group("operation", "Look at work under way",
		"Start, stop, pause, resume, reset and delete are operations: they go on when ashlarctl ends, and survive a restart of the host's control domain.",
		"  ashlarctl operation list\n  ashlarctl operation wait 4f1c", list, get, a.operationWait(), a.operationCancel())
}

func (a *app) operationWait() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait NAME...", Short: "Wait for operations to end",
		Long:              "Wait for operations to end. Fails where one of them failed.",
		Example:           "  ashlarctl operation wait 4f1c --timeout 5m",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeOperations(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			ctx, cancel := within(ctx, timeout)
			defer cancel()
			return forEach(names, func(n string) error {
				req := connect.NewRequest(&ashlarv1.GetOperationRequest{Name: resource(operations, n)})
				op, err := message(h.Operations.GetOperation(ctx, req))("get operation " + n)
				if err == nil {
					op, err = a.await(ctx, h, op, "operation "+n)
				}
				if err != nil {
					return late(ctx, "operation "+n, err, timeout)
				}
				return a.result(op, fmt.Sprintf("operation %s is done", n))
			})
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long (default: never)")
	a.formatFlag(cmd)
	return cmd
}

func (a *app) operationCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel NAME...", Short: "Ask operations to end early",
		Long:              "Ask operations to end early. What is done stays done.",
		Example:           "  ashlarctl operation cancel 4f1c",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeOperations(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return forEach(names, func(n string) error {
				req := connect.NewRequest(&ashlarv1.CancelOperationRequest{Name: resource(operations, n)})
				op, err := message(h.Operations.CancelOperation(ctx, req))("cancel operation " + n)
				if err != nil {
					return err
				}
				a.say("operation %s: %s", n, render.OperationState(op))
				return nil
			})
		}),
	}
}

// await waits until op is done; what names it in errors. A failed operation is
// an error.
func (a *app) await(ctx context.Context, h *client.Host, op *ashlarv1.Operation, what string) (*ashlarv1.Operation, error) {
	p := a.progress(what)
	defer p.clear()
	wait := waitLong
	if p.shown {
		wait = waitShort
	}
	for !op.GetDone() {
		p.show(op)
		req := connect.NewRequest(&ashlarv1.WaitOperationRequest{Name: op.GetName(), Timeout: durationpb.New(wait)})
		next, err := message(h.Operations.WaitOperation(ctx, req))(what)
		if err != nil {
			if ctx.Err() != nil {
				p.clear()
				a.note("It goes on: `ashlarctl operation wait %s` waits for it.", render.ID(op.GetName()))
			}
			return op, err
		}
		op = next
	}
	if e := op.GetError(); e != nil {
		return op, fmt.Errorf("%s: %w", what, fault.Operation(e.GetCode(), e.GetMessage()))
	}
	return op, nil
}

// result writes a finished operation: as text, or as what it is.
func (a *app) result(op *ashlarv1.Operation, text string) error {
	return render.Message(a.Out, a.format, op, func() *render.Rows {
		return &render.Rows{Lines: [][]string{{text}}}
	})
}

// progressLine is a line of a terminal that is written over and over.
type progressLine struct {
	a     *app
	what  string
	shown bool
}

// progress starts one; nothing is shown where nobody looks.
func (a *app) progress(what string) *progressLine {
	return &progressLine{a: a, what: what, shown: a.errTerminal()}
}

func (p *progressLine) show(op *ashlarv1.Operation) {
	if p.shown {
		fmt.Fprintf(p.a.Err, "\r\x1b[K%s: %s %s", p.what, render.OperationState(op), op.GetMessage())
	}
}

func (p *progressLine) clear() {
	if p.shown {
		fmt.Fprint(p.a.Err, "\r\x1b[K")
	}
}

// message takes the message out of an answer, or says what failed.
func message[T any](res *connect.Response[T], err error) func(what string) (*T, error) {
	return func(what string) (*T, error) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		return res.Msg, nil
	}
}

// within bounds ctx where timeout is not 0.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// late turns err into one that says that the user's time-out has passed, where
// it has.
func late(ctx context.Context, what string, err error, timeout time.Duration) error {
	if expired(ctx, err) {
		return fault.With(fault.TimedOut, fmt.Errorf("%s: not so within %v", what, timeout))
	}
	return err
}

// expired tells whether the deadline of ctx is what ended a call. The host, which
// is told of the deadline, may notice it first.
func expired(ctx context.Context, err error) bool {
	_, bounded := ctx.Deadline()
	return err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || bounded && connect.CodeOf(err) == connect.CodeDeadlineExceeded)
}

// listOperations gets all pages.
func listOperations(ctx context.Context, h *client.Host) ([]*ashlarv1.Operation, error) {
	return pages("list operations", func(token string) ([]*ashlarv1.Operation, string, error) {
		res, err := h.Operations.ListOperations(ctx, connect.NewRequest(&ashlarv1.ListOperationsRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetOperations(), res.Msg.GetNextPageToken(), nil
	})
}

// pages calls until there is no further page.
func pages[T any](what string, page func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		some, next, err := page(token)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		all = append(all, some...)
		if next == "" || next == token {
			return all, nil
		}
		token = next
	}
}
