package roottest

import (
	"testing"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// Another machine goes on only where the first one is gone without a word.
func TestVanished(t *testing.T) {
	r := Run{Packages: []string{"a", "b", "c"}}
	for _, tt := range []struct {
		text string
		gone bool
		at   int
	}{
		{"Linux version\n", true, -1},
		{"==> /tests/00-a\nPASS\n==> /tests/01-b\n=== RUN   TestX\n", true, 1},
		{"==> /tests/01-b\n--- FAIL: TestX\n==> /tests/02-c\n", false, 2},
		{"==> /tests/02-c\n[    9.1] Kernel panic - not syncing\n", false, 2},
		{"==> /tests/02-c\nPASS\nroottest: all passed\n", false, 2},
		{"==> /tests/02-c\nroottest: FAILED: c\n", false, 2},
		{"==> /tests/77-c\n", true, -1},
	} {
		if got := vanished(tt.text); got != (tt.gone && !lab.Hardware()) {
			t.Errorf("vanished(%q) = %v", tt.text, got)
		}
		if got := r.at(tt.text); got != tt.at {
			t.Errorf("at(%q) = %d, want %d", tt.text, got, tt.at)
		}
	}
	for text, want := range map[string]string{
		"==> /tests/00-a\n--- PASS: TestOld (0.1s)\n==> /tests/01-b\n=== RUN   TestX\n":                                    "",
		"==> /tests/01-b\n--- PASS: TestX (0.1s)\n    --- PASS: TestX/y (0.1s)\n--- PASS: TestZ (1.0s)\n=== RUN   TestQ\n": "^(TestX|TestZ)$",
	} {
		if got := done(text); got != want {
			t.Errorf("done(%q) = %q, want %q", text, got, want)
		}
	}
}
