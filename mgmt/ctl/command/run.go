// Package command is the command line of ashlarctl: what users type, turned
// into calls of ashlar.v1, and what comes back, turned into output. Results go
// to standard output, everything else to standard error.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/console"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// defaultRetry is how long a command goes on trying while the host does not
// answer.
const defaultRetry = 10 * time.Second

// IO is what a command works with.
type IO struct {
	In       *os.File
	Out, Err io.Writer
	Getenv   func(string) string
	// Version is what `ashlarctl version` prints.
	Version string
	// Now is the time; nil means time.Now.
	Now func() time.Time
}

// app is one run of ashlarctl.
type app struct {
	IO
	context string
	address string
	retry   time.Duration
	format  render.Format
	// field names what a field of the request was typed as.
	field fault.FieldName
	// started is set once the command line has been understood.
	started bool
}

// Run does what args say and returns the exit code. The context ends it early.
func Run(ctx context.Context, args []string, sys IO) int {
	if sys.Now == nil {
		sys.Now = time.Now
	}
	a := &app{IO: sys}
	root := a.root()
	a.markStart(root)
	root.SetArgs(args)
	root.SetIn(sys.In)
	root.SetOut(sys.Out)
	root.SetErr(sys.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return fault.OK
	}
	if !a.started {
		fault.Print(sys.Err, err, nil)
		fmt.Fprintf(sys.Err, "See `%s --help`.\n", cmd.CommandPath())
		return fault.Usage
	}
	for _, e := range each(err) {
		fault.Print(sys.Err, e, a.field)
	}
	if ctx.Err() != nil && context.Cause(ctx) != nil {
		return fault.Interrupted
	}
	return fault.ExitCode(each(err)[0])
}

// markStart makes every command note that the command line was right.
func (a *app) markStart(cmd *cobra.Command) {
	if do := cmd.RunE; do != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return do(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		a.markStart(sub)
	}
}

// exclusive refuses two flags that make no sense together.
func exclusive(cmd *cobra.Command, one, other string) error {
	if cmd.Flags().Changed(one) && cmd.Flags().Changed(other) {
		return fault.With(fault.Usage, fmt.Errorf("--%s and --%s exclude each other", one, other))
	}
	return nil
}

// failures are the errors of a command that took several names.
type failures []error

// Error joins them.
func (f failures) Error() string { return errors.Join(f...).Error() }

// each splits failures.
func each(err error) []error {
	var f failures
	if errors.As(err, &f) {
		return f
	}
	return []error{err}
}

// forEach does something for every name and goes on after a failure.
func forEach(names []string, do func(name string) error) error {
	var f failures
	for _, n := range names {
		if err := do(n); err != nil {
			f = append(f, each(err)...)
		}
	}
	if f == nil {
		return nil
	}
	return f
}

// dir is where contexts lie.
func (a *app) dir() (contexts.Dir, error) { return contexts.DefaultDir(a.Getenv) }

// contextName is the context asked for; empty means the one in use.
func (a *app) contextName() string {
	if a.context != "" {
		return a.context
	}
	return a.Getenv("ASHLAR_CONTEXT")
}

// connect prepares the connection to the host of the context.
func (a *app) connect() (*client.Host, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	file, err := dir.Load()
	if err != nil {
		return nil, err
	}
	c, err := file.Lookup(a.contextName())
	if err != nil {
		return nil, fault.With(fault.Usage, err)
	}
	m, err := dir.Material(c)
	if err != nil {
		return nil, err
	}
	o := client.Options{
		Address: c.Address, ServerName: c.ServerName,
		CA: m.CA, Certificate: m.Certificate, Key: m.Key,
		Retry: a.retry, UserAgent: "ashlarctl/" + a.Version,
	}
	if a.address != "" {
		o.Address = a.address
	}
	h, err := client.New(o)
	if err != nil {
		return nil, fault.With(fault.Usage, fmt.Errorf("context %s: %w", c.Name, err))
	}
	return h, nil
}

// withHost makes a cobra function of one that calls the host.
func (a *app) withHost(do func(ctx context.Context, h *client.Host, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		h, err := a.connect()
		if err != nil {
			return err
		}
		defer h.Close()
		return do(cmd.Context(), h, args)
	}
}

// say writes a line of result, unless the output is for programs.
func (a *app) say(format string, args ...any) {
	if a.format == render.Table {
		fmt.Fprintf(a.Out, format+"\n", args...)
	}
}

// note writes a line that is not the result.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }

// errTerminal tells whether progress is seen by a person.
func (a *app) errTerminal() bool {
	f, ok := a.Err.(*os.File)
	return ok && console.IsTerminal(f) && a.Getenv("TERM") != "dumb"
}

// resource puts the collection before an ID that lacks it.
func resource(collection, id string) string {
	if strings.HasPrefix(id, collection+"/") {
		return id
	}
	return collection + "/" + id
}

// bareID takes the collection away from before an ID. What else is typed stays,
// for the host to refuse.
func bareID(collection, id string) string { return strings.TrimPrefix(id, collection+"/") }

// Collections of ashlar.v1.
const (
	machines   = "virtualMachines"
	images     = "images"
	operations = "operations"
)
