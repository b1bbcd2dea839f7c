package jailtest

import (
	"flag"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// A rule that nothing has used is spare, unless tests that use it were skipped, or not all were run.
func TestCheck(t *testing.T) {
	run, skip := flag.Lookup("test.run").Value, flag.Lookup("test.skip").Value
	before, beforeSkip := run.String(), skip.String()
	defer func() { _, _ = run.Set(before), skip.Set(beforeSkip) }()
	u := NewUse(Processes, []jail.Rule{jail.Allow(unix.SYS_GETPID, "for this test")})
	for _, tt := range []struct {
		run, skip string
		code      int
	}{
		{"^TestX", "", 1},
		{"^TestX", "^TestB|^TestC$", 1},
		{"^TestX", "^TestB|^(TestA)$", 0},
		{"^TestY", "", 0},
	} {
		if err := run.Set(tt.run); err != nil {
			t.Fatal(err)
		}
		if err := skip.Set(tt.skip); err != nil {
			t.Fatal(err)
		}
		if code := u.Check(0, "^TestX", "TestA"); code != tt.code {
			t.Errorf("with -test.run %q -test.skip %q: exit code %d, want %d", tt.run, tt.skip, code, tt.code)
		}
	}
}
