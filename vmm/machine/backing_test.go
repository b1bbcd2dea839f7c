package machine

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A guest runs on pages of each kind that a memfd has, populated or not.
func TestBacking(t *testing.T) {
	for _, b := range []*protocol.Backing{nil, {}, {Pages: protocol.DefaultPages, Populate: true}, {Pages: protocol.TransparentPages, Populate: true}, {Pages: protocol.SmallPages}} {
		s := newSpec(t, tinykernel.Code{}.PowerOff())
		s.Backing = b
		g := s.loaded(t)
		start(t, g)
		if got := ended(t, g); got.Reason != protocol.PoweredOff {
			t.Errorf("%+v: result = %+v", b, got)
		}
	}
}

func TestBackingRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		backing protocol.Backing
		field   string
	}{
		{"kind", protocol.Backing{Pages: "4MiB"}, "backing.pages"},
		{"size", protocol.Backing{Pages: protocol.Pages1GiB}, "memoryBytes"},
		{"another kind of file", protocol.Backing{Pages: protocol.Pages2MiB}, "memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Halt())
			s.Backing = &tt.backing
			s.refused(t, protocol.InvalidArgument, tt.field)
		})
	}
}
