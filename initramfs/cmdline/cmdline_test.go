package cmdline

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		line string
		want Options
	}{
		{"", Options{}},
		{"console=ttyS0 panic=10\n", Options{}},
		{"console=ttyS0 ashlar.rescue=ttyS1", Options{Rescue: "ttyS1"}},
		{"ashlar.rescue=../../etc", Options{Unknown: []string{"ashlar.rescue=../../etc"}}},
		{"ashlar.rescue", Options{Unknown: []string{"ashlar.rescue"}}},
		{"ashlar.config=none debug", Options{NoConfig: true, Verbose: true}},
		{"ashlar.config=maybe", Options{Unknown: []string{"ashlar.config=maybe"}}},
		{`x="a ashlar.rescue=ttyS1 b"`, Options{}},
		{"-- ashlar.rescue=ttyS1", Options{}},
	} {
		if diff := cmp.Diff(test.want, Parse(test.line)); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", test.line, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "ashlar.rescue=ttyS1 -- x", `a="b c" ashlar.config=none`, `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if o := Parse(line); o.Rescue != "" && !terminal(o.Rescue) {
			t.Errorf("Parse(%q).Rescue = %q", line, o.Rescue)
		}
	})
}
