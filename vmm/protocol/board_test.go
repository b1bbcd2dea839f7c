package protocol

import (
	"strings"
	"testing"
)

func TestBoardCheck(t *testing.T) {
	for _, tt := range []struct {
		b     *Board
		field string
	}{
		{nil, ""},
		{&Board{}, ""},
		{&Board{Watchdog: NoAction, OnPanic: PowerOffAction, SerialNumber: strings.Repeat("7", MaxSerialNumber)}, ""},
		{&Board{Watchdog: "explode"}, "watchdog"},
		{&Board{OnPanic: "Reset"}, "onPanic"},
		{&Board{SerialNumber: strings.Repeat("7", MaxSerialNumber+1)}, "serialNumber"},
		{&Board{SerialNumber: "a\nb"}, "serialNumber"},
		{&Board{SerialNumber: "ä"}, "serialNumber"},
		{&Board{SerialNumber: "a "}, "serialNumber"},
		{&Board{SerialNumber: "a b"}, ""},
	} {
		if got, wrong := tt.b.Check(); got != tt.field || (wrong == "") != (got == "") {
			t.Errorf("%+v: Check() = %q, %q, want %q", tt.b, got, wrong, tt.field)
		}
	}
}
