package machine

import (
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestProblems(t *testing.T) {
	var full, failed protocol.DiskSet
	full.Add(0)
	full.Add(15)
	failed.Add(3)
	failed.Add(31) // no disk of ours
	for _, c := range []struct {
		st   hostcall.GuestStatus
		want []string
	}{
		{hostcall.GuestStatus{}, nil},
		{hostcall.GuestStatus{DisksFull: full, DisksFailed: failed, TapsGone: []int{2}},
			[]string{"disk 0 got I/O errors, as the pool", "disk 15 got I/O errors, as the pool", "disk 3 got I/O errors, as the host's data disk", "network interface 2 has lost"}},
	} {
		got := problems(c.st)
		if len(got) != len(c.want) {
			t.Fatalf("problems = %q, want %q", got, c.want)
		}
		for i, want := range c.want {
			if !strings.HasPrefix(got[i], want) || !strings.Contains(got[i], ": ") {
				t.Errorf("problem %d = %q, want %q and what to do", i, got[i], want)
			}
		}
	}
}
