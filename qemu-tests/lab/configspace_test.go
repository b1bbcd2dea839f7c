package lab

import (
	"strings"
	"testing"
)

func TestWriteConfigRefuses(t *testing.T) {
	l := &Lab{Config{Dir: t.TempDir()}}
	for _, tt := range []struct {
		address string
		at      int
	}{{"", 4}, {"00:06.0", 4}, {"0001:00:06.0", 4}, {"0000:00:06.0", 5}, {"0000:00:06.0", -2}, {"0000:00:06.0", 0x100}} {
		if err := l.WriteConfig(tt.address, tt.at, 0); err == nil || !strings.Contains(err.Error(), "no such place") {
			t.Errorf("write to %#x of %q: %v", tt.at, tt.address, err)
		}
	}
}
