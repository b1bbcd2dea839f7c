package kconfig

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `# The hypervisor.

CONFIG_KVM=y # the hypervisor itself
CONFIG_KVM_XEN=n   #   not served
CONFIG_NR_CPUS=512 # large servers
CONFIG_PHYSICAL_START=0x1000000 # as always
CONFIG_LSM="lockdown,yama # x" # in this order
`
	got, err := Parse("kvm.config", strings.NewReader(text))
	want := []Option{
		{"KVM", "y", "the hypervisor itself", "kvm.config", 3},
		{"KVM_XEN", "n", "not served", "kvm.config", 4},
		{"NR_CPUS", "512", "large servers", "kvm.config", 5},
		{"PHYSICAL_START", "0x1000000", "as always", "kvm.config", 6},
		{"LSM", `"lockdown,yama # x"`, "in this order", "kvm.config", 7},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Parse = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       error
	}{
		{"no reason", "CONFIG_KVM=y", ErrNoReason},
		{"empty reason", "CONFIG_KVM=y # ", ErrNoReason},
		{"module", "CONFIG_KVM=m # why", ErrModule},
		{"no value", "CONFIG_KVM= # why", ErrValue},
		{"bad number", "CONFIG_NR_CPUS=5k # why", ErrValue},
		{"backslash", `CONFIG_LSM="a\b" # why`, ErrValue},
		{"open string", `CONFIG_LSM="a # why`, ErrSyntax},
		{"no prefix", "KVM=y # why", ErrSyntax},
		{"bad name", "CONFIG_K-VM=y # why", ErrSyntax},
		{"space", "CONFIG_KVM = y # why", ErrSyntax},
		{"text after value", "CONFIG_KVM=y why", ErrSyntax},
		{"reason glued on", "CONFIG_KVM=y# why", ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse("a.config", strings.NewReader("# first\nCONFIG_SMP=y # why\n"+tt.line+"\n"))
			if !errors.Is(err, tt.want) || got != nil {
				t.Fatalf("Parse(%q) = %v, %v, want no options and %v", tt.line, got, err, tt.want)
			}
			if !strings.HasPrefix(err.Error(), "a.config:3: ") {
				t.Errorf("Parse(%q) error = %q, want it to start with a.config:3", tt.line, err)
			}
		})
	}
}

func TestParseReportsEveryLine(t *testing.T) {
	_, err := Parse("a.config", strings.NewReader("x\nCONFIG_SMP=y # why\ny\n"))
	if err == nil || !strings.Contains(err.Error(), "a.config:1:") || !strings.Contains(err.Error(), "a.config:3:") {
		t.Errorf("Parse error = %v, want lines 1 and 3 named", err)
	}
}

func TestParseLongLine(t *testing.T) {
	_, err := Parse("a.config", strings.NewReader("\n# "+strings.Repeat("x", 2*maxLine)))
	if err == nil || !strings.Contains(err.Error(), "a.config:2:") {
		t.Errorf("Parse(long line) error = %v, want line 2 named", err)
	}
}

func TestMergeRefusesDuplicates(t *testing.T) {
	a := []Option{{Name: "KVM", Value: "y", File: "a", Line: 1}}
	b := []Option{{Name: "SMP", Value: "y", File: "b", Line: 1}, {Name: "KVM", Value: "y", File: "b", Line: 2}}
	_, err := Merge(a, b)
	if !errors.Is(err, ErrTwice) || !strings.Contains(err.Error(), "b:2: CONFIG_KVM") || !strings.Contains(err.Error(), "a:1") {
		t.Errorf("Merge error = %v, want ErrTwice with both places", err)
	}
}

func TestFormat(t *testing.T) {
	got := string(Format([]Option{{Name: "KVM", Value: "y", Reason: "why"}, {Name: "KSM", Value: "n"}}))
	if want := "CONFIG_KVM=y\n# CONFIG_KSM is not set\n"; got != want {
		t.Errorf("Format = %q, want %q", got, want)
	}
}

// FuzzParse feeds fragments of any content. Whatever Parse accepts must survive Format and Check unharmed.
func FuzzParse(f *testing.F) {
	f.Add([]byte("CONFIG_KVM=y # why\n# comment\nCONFIG_LSM=\"a,b\" # why\n"))
	f.Add([]byte("CONFIG_A=0x10 # b\r\nCONFIG_B=-1 #\tc"))
	f.Add([]byte("CONFIG_A=m\x00=\"\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		options, err := Parse("f", strings.NewReader(string(text)))
		if err != nil {
			if options != nil {
				t.Fatalf("options %v beside error %v", options, err)
			}
			return
		}
		merged, err := Merge(options)
		if err != nil {
			return
		}
		if err := Check(merged, strings.NewReader(string(Format(merged)))); err != nil {
			t.Fatalf("Check(Format) = %v", err)
		}
	})
}
