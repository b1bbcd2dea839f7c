package command

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/hosttest"
)

var update = flag.Bool("update", false, "write the transcripts as they come out")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A run is a way to call ashlarctl in a test.
type run struct {
	host *hosttest.Host
	tmp  string
	env  map[string]string
	in   *os.File
}

// newRun starts a host with a context for it, and some files to upload.
func newRun(t *testing.T) *run {
	t.Helper()
	h := hosttest.Start(t)
	tmp := t.TempDir()
	kernel := make([]byte, 3<<20)
	copy(kernel[1<<20:], bytes.Repeat([]byte("kernel"), 1000))
	for name, content := range map[string][]byte{
		"Kernel_1.IMG": kernel,
		"other":        []byte("other content"),
		"empty":        nil,
		"disk.qcow2":   []byte("QFI\xfb and so on"),
		"bad.yaml":     []byte("version: 1\nhostname: a_b\nnosuch: 1\n"),
	} {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return &run{host: h, tmp: tmp, in: null, env: map[string]string{"ASHLAR_CONFIG_DIR": string(h.Dir)}}
}

// do runs a command.
func (r *run) do(ctx context.Context, args ...string) (code int, out, err string) {
	var o, e bytes.Buffer
	code = Run(ctx, args, IO{
		In: r.in, Out: &o, Err: &e, Getenv: func(k string) string { return r.env[k] }, Version: "1.0-test",
		Now: func() time.Time { return hosttest.Time },
	})
	return code, o.String(), e.String()
}

// words splits a line at spaces outside single quotes.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// directive changes the host between commands.
func (r *run) directive(t *testing.T, line string) {
	t.Helper()
	w := words(line)
	switch w[0] {
	case "@image":
		r.host.AddImage(w[1], 1<<20)
	case "@print":
		r.host.Print(w[1], strings.ReplaceAll(w[2], `\n`, "\n"))
	case "@poweroff":
		r.host.End(w[1], ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF, "")
	case "@crash":
		r.host.End(w[1], ashlarv1.VirtualMachine_STOP_REASON_TRIPLE_FAULT, "vCPU 0 at 0xfff0")
	case "@stop-host":
		r.host.Stop()
	case "@start-host":
		r.host.Restart()
	case "@env":
		r.env[w[1]] = w[2]
	default:
		t.Fatalf("no directive %s", w[0])
	}
}

// plain replaces what differs from run to run.
func (r *run) plain(s string) string {
	for _, p := range [][2]string{{r.tmp, "$TMP"}, {string(r.host.Dir), "$DIR"}, {r.host.Addr, "$ADDR"}} {
		s = strings.ReplaceAll(s, p[0], p[1])
	}
	return s
}

// transcript runs the commands of a file and returns the file as it should be:
// each command (after `$ `) with its output, lines of standard error marked
// `! `, and the exit code where it is not 0.
func (r *run) transcript(t *testing.T, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			fmt.Fprintln(&b, line)
		case strings.HasPrefix(line, "@"):
			fmt.Fprintln(&b, line)
			r.directive(t, line)
		case strings.HasPrefix(line, "$ ashlarctl"):
			fmt.Fprintln(&b, line)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			args := words(strings.ReplaceAll(strings.TrimPrefix(line, "$ ashlarctl"), "$TMP", r.tmp))
			code, out, errs := r.do(ctx, args...)
			cancel()
			b.WriteString(out)
			if out != "" && !strings.HasSuffix(out, "\n") {
				b.WriteString("\\\n")
			}
			for e := range strings.Lines(errs) {
				b.WriteString("! " + strings.TrimSuffix(e, "\n") + "\n")
			}
			if code != 0 {
				fmt.Fprintf(&b, "[%d]\n", code)
			}
			b.WriteString("\n")
		}
	}
	return r.plain(b.String())
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newRun(t).transcript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("%s (-want +got; go test -update writes it):\n%s", file, d)
			}
		})
	}
}
