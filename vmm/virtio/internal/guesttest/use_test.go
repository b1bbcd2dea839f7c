//go:build roottest

package guesttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
)

// use is what guests use of their VMMs' jails in these tests, of which kind there are two
// (guests_test.go, vfio_test.go).
var use = jailtest.NewUse(kind, jailtest.VMMRules(0))

func TestMain(m *testing.M) {
	jailtest.RecordMain(jailtest.VMMRules)
	os.Exit(use.Check(m.Run(), every, recorded...))
}

// startMarked starts a VMM whose jail marks the rules that a guest's drivers use, and records
// what it uses. The VMM's guest has slots, where it has devices of the host's: else its rules
// have other places than those of use.
func startMarked(t *testing.T) *vmm {
	t.Helper()
	v := startProgram(t, "/bin/ashlar-vmm-marked")
	recording, err := jailtest.RecordMarked(v.cmd.Process.Pid, filepath.Join(t.TempDir(), "calls"))
	must(t, err)
	t.Cleanup(func() {
		v.cmd.Process.Kill()
		use.Note(t, recording)
	})
	return v
}
