package protocol

import (
	"strings"
	"testing"
)

func TestCheckPorts(t *testing.T) {
	for _, tt := range []struct {
		names []string
		place int
		wrong string
	}{
		{nil, 0, ""},
		{[]string{"org.qemu.guest_agent.0", "a", "-", "...", strings.Repeat("x", MaxPortName), "0", "_"}, 0, ""},
		{strings.Split("a b c d e f g h", " "), -1, "has 8: at most 7"},
		{[]string{"a", ""}, 1, "letters"},
		{[]string{"."}, 0, "letters"},
		{[]string{".."}, 0, "letters"},
		{[]string{"a", "b", "a"}, 2, "twice"},
		{[]string{strings.Repeat("x", MaxPortName+1)}, 0, "letters"},
		{[]string{"A"}, 0, "letters"},
		{[]string{"a/b"}, 0, "letters"},
		{[]string{"a b"}, 0, "letters"},
		{[]string{"a\x00"}, 0, "letters"},
		{[]string{"ä"}, 0, "letters"},
	} {
		if place, wrong := CheckPorts(tt.names); place != tt.place || !strings.Contains(wrong, tt.wrong) || (wrong == "") != (tt.wrong == "") {
			t.Errorf("CheckPorts(%q) = %d, %q; want %d, %q", tt.names, place, wrong, tt.place, tt.wrong)
		}
	}
}
