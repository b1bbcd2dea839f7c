package machine

import (
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestPortsRefused(t *testing.T) {
	for _, tt := range []struct{ names, field string }{
		{"a,b,c,d,e,f,g,h", "ports"},
		{"a,B", "ports[1].name"},
		{"a,b,a", "ports[2].name"},
	} {
		s := newSpec(t, tinykernel.Code{}.Halt())
		for name := range strings.SplitSeq(tt.names, ",") {
			s.Ports = append(s.Ports, protocol.Port{Name: name})
		}
		g, err := FromSpec(&s.Spec, s.files)
		if err == nil {
			g.Close()
			t.Fatalf("ports %s were taken", tt.names)
		}
		if err.Code != protocol.InvalidArgument || err.Field != tt.field {
			t.Errorf("ports %s: refused with %+v, want the field %s", tt.names, err, tt.field)
		}
	}
}

// TestConnectPort connects to ports of a guest that has no driver for them.
func TestConnectPort(t *testing.T) {
	s := newSpec(t, tinykernel.Code{}.Idle())
	s.Ports = []protocol.Port{{Name: "agent.0"}}
	g := s.loaded(t)
	start(t, g)
	for name, want := range map[string]protocol.ErrorCode{"agent.0": protocol.FailedPrecondition, "agent.1": protocol.InvalidArgument, "": protocol.InvalidArgument} {
		if f, err := g.ConnectPort(name); err == nil || err.Code != want {
			t.Errorf("ConnectPort(%q) = %v, %+v; want %s", name, f, err, want)
		}
	}
	if n, known := g.Counters().Devices["console.port1.sent_bytes"]; !known || n != 0 {
		t.Errorf("port1.sent_bytes = %d, %v", n, known)
	}
	if _, known := newSpec(t, tinykernel.Code{}.Idle()).loaded(t).Counters().Devices["console.port1.sent_bytes"]; known {
		t.Error("a guest without serial ports counts what one of them has sent")
	}
}
