package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// placementLong is what `vm create --help` says of the flags below.
const placementLong = `

--placement auto has the host choose one NUMA node for processors, memory and
passed-through devices, that of the devices where there are some; with --numa one for each node
that names none. --placement node=N names it. --cpu-pinning auto gives each processor a CPU
of the host of its own, --cpu-pinning LIST those of the list, one for each processor in
their order (2+3+8, or 2-5); all other threads run beside them. --exclusive-cores takes the whole cores of
these CPUs from all others: other virtual machines, threads of the host, interrupts.
Where the host has not what is asked for, the virtual machine does not start, and the
message says what is free where. ` + "`ashlarctl vm get`" + ` shows where it is, and why.`

// placementFlags are the flags of `vm create` for where on the host it is to be.
type placementFlags struct {
	node, pinning string
	exclusive     bool
}

// add adds the flags to cmd.
func (fl *placementFlags) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&fl.node, "placement", "", "NUMA node of the host for processors and memory: auto, or node=N")
	f.StringVar(&fl.pinning, "cpu-pinning", "none", "a CPU of the host for each processor: none, auto, or a list such as 2-5")
	f.BoolVar(&fl.exclusive, "exclusive-cores", false, "take the cores of these CPUs from all others")
	a.must(cmd.RegisterFlagCompletionFunc("placement", cobra.FixedCompletions([]string{"auto", "node="}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)))
	a.must(cmd.RegisterFlagCompletionFunc("cpu-pinning", cobra.FixedCompletions([]string{"auto", "none"}, cobra.ShellCompDirectiveNoFileComp)))
}

// ParsePlacement reads the values of --placement, --cpu-pinning and --exclusive-cores; nil
// where they say nothing.
func ParsePlacement(node, pinning string, exclusive bool) (*ashlarv1.Placement, error) {
	p := &ashlarv1.Placement{ExclusiveCores: exclusive}
	switch id, named := strings.CutPrefix(node, "node="); {
	case node == "auto":
		p.Auto = true
	case named:
		numbers, err := parseNumbers(id)
		if err != nil || len(numbers) != 1 {
			return nil, fmt.Errorf("--placement: node %q: want the number of one", id)
		}
		p.Node = &numbers[0]
	case node != "":
		return nil, fmt.Errorf("--placement: %q: want auto or node=N", node)
	}
	switch pinning {
	case "auto":
		p.PinCpus = true
	case "", "none":
	default:
		var err error
		if p.Cpus, err = parseNumbers(strings.ReplaceAll(pinning, ",", "+")); err != nil {
			return nil, fmt.Errorf("--cpu-pinning: %w", err)
		}
	}
	if node == "" && !p.PinCpus && len(p.Cpus) == 0 && !exclusive {
		return nil, nil
	}
	return p, nil
}
