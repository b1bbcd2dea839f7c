package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tree is all commands.
func tree(t *testing.T) *cobra.Command {
	t.Helper()
	a := &app{IO: IO{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Getenv: func(string) string { return "" }}}
	root := a.root()
	if s := a.Err.(*bytes.Buffer).String(); s != "" {
		t.Fatalf("the tree complains: %s", s)
	}
	return root
}

// every visits all commands.
func every(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		every(sub, visit)
	}
}

func TestEveryCommandIsExplained(t *testing.T) {
	every(tree(t), func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s: short, long or example is missing", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s is not explained", cmd.CommandPath(), f.Name)
			}
		})
	})
}

// TestExamplesAreRight parses every example as it would be run.
func TestExamplesAreRight(t *testing.T) {
	n := 0
	every(tree(t), func(cmd *cobra.Command) {
		text := strings.ReplaceAll(cmd.Example, "\\\n", " ")
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " <")
			line = strings.ReplaceAll(strings.TrimPrefix(line, "sudo "), `"`, "'")
			args := words(line)
			if len(args) == 0 || args[0] != "ashlarctl" {
				t.Errorf("%s: example %q", cmd.CommandPath(), line)
				continue
			}
			n++
			found, rest, err := tree(t).Find(args[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateRequiredFlags()
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err != nil || found.HasSubCommands() {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
	if n < 40 {
		t.Errorf("%d examples, want more", n)
	}
}

func TestReadingCommandsHaveFormats(t *testing.T) {
	for _, path := range []string{
		"host get", "image list", "image get", "vm list", "vm get", "vm stats", "vm balloon", "vm set-memory", "operation list", "operation get", "watch",
		"device list", "device get", "hugepages list", "hugepages set",
		"context list", "context show", "version",
	} {
		cmd, _, err := tree(t).Find(strings.Fields(path))
		if err != nil || cmd.Flags().ShorthandLookup("o") == nil {
			t.Errorf("%s: no -o (%v)", path, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	r := newRun(t)
	for _, id := range []string{"kernel", "debian"} {
		r.host.AddImage(id, 1)
	}
	if code, _, errs := r.do(t.Context(), "vm", "create", "demo", "--kernel", "kernel", "--disk", "debian", "--network", "default", "--start"); code != 0 {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"vm start ", []string{"demo\trunning"}},
		{"vm console ", []string{"demo\trunning"}},
		{"vm console demo ", nil},
		{"image delete ", []string{"debian", "kernel"}},
		{"vm create x --kernel ", []string{"debian", "kernel"}},
		{"vm create x --disk ", []string{"debian", "kernel"}},
		{"vm create x --network ", []string{"default"}},
		{"vm wait x --for ", []string{"running", "paused", "stopped"}},
		{"vm pause ", []string{"demo\trunning"}},
		{"vm resume ", []string{"demo\trunning"}},
		{"vm reset ", []string{"demo\trunning"}},
		{"vm nmi ", []string{"demo\trunning"}},
		{"vm balloon ", []string{"demo\trunning"}},
		{"vm balloon demo ", nil},
		{"vm set-memory ", []string{"demo\trunning"}},
		{"vm set-memory demo ", nil},
		{"vm limit-disk ", []string{"demo\trunning"}},
		{"vm limit-disk demo ", nil},
		{"vm limit-nic ", []string{"demo\trunning"}},
		{"vm set-link demo ", nil},
		{"vm set-link demo 0 ", []string{"up", "down"}},
		{"vm resize-disk ", []string{"demo\trunning"}},
		{"vm attach-disk ", []string{"demo\trunning"}},
		{"vm attach-disk demo --image ", []string{"debian", "kernel"}},
		{"vm attach-nic demo --network ", []string{"default"}},
		{"vm detach-disk ", []string{"demo\trunning"}},
		{"vm detach-disk demo ", []string{"0"}},
		{"vm detach-disk demo 0 ", nil},
		{"vm detach-nic demo ", []string{"0"}},
		{"vm stats ", []string{"demo\trunning"}},
		{"vm stats demo ", nil},
		{"vm connect ", []string{"demo\trunning"}},
		{"vm connect demo ", nil},
		{"vm connect demo --serial ", nil},
		{"vm forward ", []string{"demo\trunning"}},
		{"operation wait ", []string{"1\tstart virtualMachines/demo"}},
		{"vm list --context ", []string{"test\t" + r.host.Addr}},
		{"context use ", []string{"test\t" + r.host.Addr}},
		{"vm list -o ", []string{"table", "json", "yaml"}},
		{"watch ", []string{"virtualMachines", "images", "operations", "pciDevices", "links"}},
		{"device get ", []string{"0000:00:1c.0\tPCI bridge, Intel", "0000:01:00.0\tEthernet controller, Intel", "0000:01:10.0\tEthernet controller, Intel", "0000:02:00.0\tNVMe controller, Samsung"}},
		{"hugepages set ", []string{"2MiB\t0, 0 free"}},
		{"hugepages set 2MiB 1 --node ", []string{"0", "1"}},
		{"--context nosuch vm start ", nil},
	} {
		args := append([]string{cobra.ShellCompRequestCmd}, strings.Split(c.args, " ")...)
		_, out, _ := r.do(t.Context(), args...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		got := strings.Join(lines[:len(lines)-1], "|") // the last is a directive
		if got != strings.Join(c.want, "|") {
			t.Errorf("completion of %q = %q, want %q", c.args, got, c.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errs := r.do(t.Context(), "completion", shell); code != 0 || !strings.Contains(out, "ashlarctl") {
			t.Errorf("completion %s = %d, %d bytes, %s", shell, code, len(out), errs)
		}
	}
}

func TestHelpTellsExitCodes(t *testing.T) {
	r := newRun(t)
	_, out, _ := r.do(t.Context(), "--help")
	for _, want := range []string{"Exit codes:", "130", "512MiB", "$ASHLAR_CONTEXT"} {
		if !strings.Contains(out, want) {
			t.Errorf("--help does not tell about %s", want)
		}
	}
}
