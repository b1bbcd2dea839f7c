package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Populating leaves a process that can give up its privilege and run a guest.
func TestPopulatedInJail(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Spin(), func(s *protocol.Spec) {
		s.Backing = &protocol.Backing{Pages: protocol.TransparentPages, Populate: true}
	}); err != nil {
		t.Fatal(err)
	}
	v.ask(protocol.Pause)
	v.ask(protocol.Stop)
	if got := v.ended(0); got.Reason != protocol.Killed {
		t.Errorf("result = %+v, want killed", got)
	}
}

func TestParseMemory(t *testing.T) {
	for in, want := range map[string]*protocol.Backing{
		"256MiB": nil, "256MiB,populate": {Populate: true},
		"256MiB,populate,transparent": {Pages: protocol.TransparentPages, Populate: true},
		"256MiB,4KiB":                 {Pages: protocol.SmallPages},
	} {
		n, b, err := parseMemory(in)
		if d := cmp.Diff(want, b); d != "" || n != 256<<20 || err != nil {
			t.Errorf("parseMemory(%q) = %d, %v (-want +got):\n%s", in, n, err, d)
		}
	}
	for _, bad := range []string{"", "256", "x,populate", "256MiB,", "256MiB,2MiB"} {
		if n, b, err := parseMemory(bad); err == nil || n != 0 || b != nil {
			t.Errorf("parseMemory(%q) = %d, %+v, %v", bad, n, b, err)
		}
	}
}
