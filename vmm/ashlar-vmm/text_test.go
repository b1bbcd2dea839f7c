package main

import (
	"os"
	"strings"
	"testing"
)

// TestDropText looks whether fewer pages of the program are mapped afterwards, and whether it
// goes on.
func TestDropText(t *testing.T) {
	mapped := func() (kib int) {
		b, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		program := false
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case strings.Contains(f[0], "-") && len(f) >= 5:
				program = strings.HasPrefix(f[1], "r-") && strings.Contains(line, ".test")
			case program && f[0] == "Rss:":
				n := 0
				for _, c := range f[1] {
					n = 10*n + int(c-'0')
				}
				kib += n
			}
		}
		return kib
	}
	before := mapped()
	if err := dropText(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(); after >= before || before == 0 {
		t.Errorf("%d KiB of the program are mapped, %d before", after, before)
	}
}
