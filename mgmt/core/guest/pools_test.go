package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/google/go-cmp/cmp"
)

// partlyUsed is a pool of 20 pages of 2 MiB: 6 in use on node 0, 3 promised.
func partlyUsed() *hugepages.Size {
	return &hugepages.Size{Pool: hugepages.Pool{Total: 20, Free: 14, Reserved: 3}, PageBytes: 2 << 20,
		Nodes: []hugepages.Node{{ID: 0, Total: 12, Free: 6}, {ID: 4, Total: 8, Free: 8}}}
}

func TestPlanOf(t *testing.T) {
	node := func(n int) *int { return &n }
	for _, tt := range []struct {
		name string
		size hostcall.HugepageSize
		want []resize
		code hostcall.Code
	}{
		{"spread", hostcall.HugepageSize{Pages: 25}, []resize{{0, 12, 13}, {4, 8, 12}}, ""},
		{"nothing", hostcall.HugepageSize{}, []resize{{0, 12, 0}, {4, 8, 0}}, ""},
		{"one node", hostcall.HugepageSize{Pages: 25, Node: node(4)}, []resize{{4, 8, 25}}, ""},
		{"no more than there is", hostcall.HugepageSize{Pages: 7, Node: node(4), AtMost: true}, nil, ""},
		{"what can be had", hostcall.HugepageSize{Pages: 9, Node: node(4), AtMost: true}, []resize{{4, 8, 9}}, ""},
		{"no such node", hostcall.HugepageSize{Pages: 9, Node: node(1)}, nil, hostcall.InvalidArgument},
		{"less than nothing", hostcall.HugepageSize{Pages: -1}, nil, hostcall.InvalidArgument},
		{"too many", hostcall.HugepageSize{Pages: 1 << 62}, nil, hostcall.InvalidArgument},
	} {
		got, err := planOf(partlyUsed(), tt.size)
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(resize{})); d != "" || (err == nil) != (tt.code == "") || err != nil && code(err) != tt.code {
			t.Errorf("%s: %v, %v", tt.name, err, d)
		}
	}
}

func TestKeepPromises(t *testing.T) {
	for _, tt := range []struct {
		name string
		plan []resize
		want string
	}{
		{"larger", []resize{{0, 12, 100}}, ""},
		{"those that are free", []resize{{0, 12, 9}, {4, 8, 0}}, ""},
		{"those in use", []resize{{0, 12, 5}}, "Guests use 6 pages of 2MiB of the host's NUMA node 0, it is to have 5"},
		{"those in use, although there will be more", []resize{{0, 12, 5}, {4, 8, 100}}, "Guests use 6 pages"},
		{"a promised one", []resize{{0, 12, 8}, {4, 8, 0}}, "Of the 20 pages of 2MiB 6 are in use and 3 more are promised to guests: stop guests that use the pool, or set no less than 9."},
		{"promised ones, of one node", []resize{{0, 12, 6}}, ""},
	} {
		err := keepPromises(partlyUsed(), tt.plan)
		var he *hostcall.Error
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.As(err, &he) || he.Code != hostcall.FailedPrecondition || !strings.Contains(he.Message, tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Memory that a pool grows by is not a guest's.
func TestPledge(t *testing.T) {
	m := &Manager{c: Config{Memory: func() (int64, error) { return memoryReserve + 10<<20, nil }}}
	if _, err := m.pledge(2<<20, []resize{{0, 0, 6}}, false); err == nil || code(err) != hostcall.ResourceExhausted || !strings.Contains(err.Error(), "memory for 5 more") {
		t.Errorf("12 MiB of 10: %v", err)
	}
	plan := []resize{{0, 1, 4}, {9, 0, 3}, {10, 5, 0}}
	done, err := m.pledge(2<<20, plan, true)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]resize{{0, 1, 4}, {9, 0, 2}, {10, 5, 0}}, plan, cmp.AllowUnexported(resize{})); d != "" {
		t.Errorf("what is left of the plan: %s", d)
	}
	if left, err := m.left(); left != 0 || err != nil {
		t.Errorf("%d bytes are left for guests, %v", left, err)
	}
	done()
	if left, err := m.left(); left != 10<<20 || err != nil {
		t.Errorf("%d bytes are left for guests afterwards, %v", left, err)
	}
}
