package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

const rootLong = `ashlarctl manages Ashlar hosts: it prepares their configuration and image,
uploads images, and creates, starts, watches and stops guests.

A context says which host, and as whom: see "ashlarctl context". Contexts lie
in $ASHLAR_CONFIG_DIR, else $XDG_CONFIG_HOME/ashlar, else ~/.config/ashlar.
$ASHLAR_CONTEXT names the context to use where --context does not.

Sizes are a number and a unit: 512MiB, 4GiB, 1.5T; K, M, G and T mean the same
as KiB, MiB, GiB and TiB. Durations are like 500ms, 90s, 1h30m.

Exit codes:
  0    done
  1    failed
  2    wrong command line, or the host refused a value in it
  3    the host does not answer
  4    what was named is not there
  5    certificate or rights are missing
  6    exists already, or is in the wrong state for this
  7    a time-out has passed
  130  interrupted`

const rootExample = `  ashlarctl config init --host-name rack1 --address 192.0.2.10:8443
  sudo ashlarctl image configure /dev/sdX --config ashlar.yaml
  ashlarctl image upload vmlinuz
  ashlarctl vm create demo --memory 512MiB --kernel vmlinuz --disk size=4GiB --network default --start
  ashlarctl vm console demo`

// root is the whole tree of commands.
func (a *app) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "ashlarctl",
		Short:         "Manage Ashlar hosts and their guests",
		Long:          rootLong,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	a.format = render.Table
	f := cmd.PersistentFlags()
	f.StringVar(&a.context, "context", "", "context to use (default $ASHLAR_CONTEXT, else the current one)")
	f.StringVar(&a.address, "address", "", "HOST:PORT to use in place of the context's")
	f.DurationVar(&a.retry, "retry", defaultRetry, "how long to go on trying while the host does not answer")
	a.must(cmd.RegisterFlagCompletionFunc("context", a.completeContexts))
	a.must(cmd.RegisterFlagCompletionFunc("address", cobra.NoFileCompletions))
	a.must(cmd.RegisterFlagCompletionFunc("retry", cobra.NoFileCompletions))
	cmd.AddCommand(a.contextCommand(), a.configCommand(), a.imageCommand(), a.hostCommand(), a.vmCommand(),
		a.deviceCommand(), a.linkCommand(), a.hugepagesCommand(),
		a.operationCommand(), a.watchCommand(), a.versionCommand())
	return cmd
}

// must is for what can only be wrong in this program itself, and is found by
// any test that builds the tree: the run ends with the error.
func (a *app) must(err error) {
	if err != nil {
		a.note("ashlarctl: %v", err)
	}
}

// group is a command that only holds others.
func group(use, short, long, example string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			err := fmt.Errorf("%s has no command %q; see `%[1]s --help`", cmd.CommandPath(), args[0])
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				err = fmt.Errorf("%s has no command %q; did you mean %s?", cmd.CommandPath(), args[0], s[0])
			}
			return fault.With(fault.Usage, err)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(subs...)
	return cmd
}

// formatFlag adds -o.
func (a *app) formatFlag(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.Flags().VarP(&a.format, "output", "o", "output format")
		a.must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(render.Formats, cobra.ShellCompDirectiveNoFileComp)))
	}
}

// versionCommand prints the version.
func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of ashlarctl",
		Long:    "Print the version of ashlarctl. That of a host is in `ashlarctl host get`.",
		Example: "  ashlarctl version\n  ashlarctl version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
			}{a.Version}
			return render.Value(a.Out, a.format, v, func() *render.Rows {
				return &render.Rows{Lines: [][]string{{"ashlarctl " + a.Version}}}
			})
		},
	}
	a.formatFlag(cmd)
	return cmd
}
