package kconfig

import (
	"errors"
	"strings"
	"testing"
)

const final = `#
# Linux/x86 6.12
#
CONFIG_KVM=y
# CONFIG_KSM is not set
CONFIG_NR_CPUS=512
CONFIG_LSM="lockdown,yama"
CONFIG_EQ="a=b"
`

func TestCheck(t *testing.T) {
	ok := []Option{
		{Name: "KVM", Value: "y"},
		{Name: "KSM", Value: "n"},
		{Name: "ABSENT", Value: "n"},
		{Name: "NR_CPUS", Value: "512"},
		{Name: "LSM", Value: `"lockdown,yama"`},
		{Name: "EQ", Value: `"a=b"`},
	}
	if err := Check(ok, strings.NewReader(final)); err != nil {
		t.Errorf("Check = %v, want no error", err)
	}
}

func TestCheckMismatch(t *testing.T) {
	for _, tt := range []struct {
		option Option
		got    string
	}{
		{Option{Name: "KVM", Value: "n", File: "a.config", Line: 7}, "y"},
		{Option{Name: "KSM", Value: "y", File: "a.config", Line: 8}, "n"},
		{Option{Name: "ABSENT", Value: "y", File: "a.config", Line: 9}, "n"},
		{Option{Name: "NR_CPUS", Value: "64", File: "a.config", Line: 10}, "512"},
		{Option{Name: "LSM", Value: `"yama"`, File: "a.config", Line: 11}, `"lockdown,yama"`},
	} {
		t.Run(tt.option.Name, func(t *testing.T) {
			err := Check([]Option{tt.option}, strings.NewReader(final))
			var ms Mismatches
			if !errors.As(err, &ms) || len(ms) != 1 || ms[0].Got != tt.got {
				t.Fatalf("Check(%+v) = %v, want one mismatch with %s", tt.option, err, tt.got)
			}
			want := tt.option.Position() + ": CONFIG_" + tt.option.Name + ": want " + tt.option.Value + ", got " + tt.got
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Check error = %q, want %q in it", err, want)
			}
		})
	}
}
