package lab

import (
	"strings"
	"testing"
)

func TestNUMA(t *testing.T) {
	for _, tt := range []struct {
		memory string
		cpus   int
		args   []string
		want   string // in the options; "" where there are none
	}{
		{"4G", 1, nil, "size=3221225472 -object memory-backend-ram,id=far,size=1073741824 -numa node,nodeid=0,memdev=near,cpus=0-0 -numa node,nodeid=1,memdev=far -numa dist"},
		{"2048", 4, nil, "size=1610612736 -object memory-backend-ram,id=far,size=536870912 -numa node,nodeid=0,memdev=near,cpus=0-1 -numa node,nodeid=1,memdev=far,cpus=2-3 "},
		{"512m", 3, nil, "node,nodeid=0,memdev=near,cpus=0-1 -numa node,nodeid=1,memdev=far,cpus=2-2 "},
		{"4G", 1, []string{"-numa", "node"}, ""},
		{"4G", 1, []string{"-m", "2G"}, ""},
		{"4", 1, nil, ""},
	} {
		l := &Lab{Config{Args: tt.args}}
		got, err := l.numa(tt.memory, tt.cpus)
		if err != nil || !strings.Contains(strings.Join(got, " "), tt.want) || (tt.want == "") != (len(got) == 0) {
			t.Errorf("numa(%s, %d) = %v, %v, want %q", tt.memory, tt.cpus, got, err, tt.want)
		}
	}
	for _, s := range []string{"", "G", "lots", "0", "-1G"} {
		if got, err := new(Lab).numa(s, 1); err == nil {
			t.Errorf("numa(%q) = %v", s, got)
		}
	}
}
