package net

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// The driver is interrupted when the link goes down or up, and only then; a link that is
// down stays so over a reset.
func TestSetLink(t *testing.T) {
	r := newRig(t, newPipe(t), all)
	if !r.features.Has(featStatus) {
		t.Fatal("VIRTIO_NET_F_STATUS is not offered")
	}
	for _, step := range []struct {
		up, told bool
		status   uint64
	}{{true, false, statusLinkUp}, {false, true, 0}, {false, false, 0}, {true, true, statusLinkUp}, {false, true, 0}} {
		before := r.Common(virtiotest.ConfigGeneration, 1)
		r.dev.SetLink(step.up)
		if told := r.Common(virtiotest.ConfigGeneration, 1) != before; told != step.told {
			t.Errorf("set %v: configuration changed %v, want %v", step.up, told, step.told)
		}
		if step.told && !r.Vector(0).Take(virtiotest.Patience) {
			t.Errorf("set %v: no configuration change interrupt", step.up)
		}
		if s := r.Device(cfgStatus, 2); s != step.status {
			t.Errorf("set %v: status %d, want %d", step.up, s, step.status)
		}
	}
	r.start(all)
	if s := r.Device(cfgStatus, 2); s != 0 {
		t.Errorf("after a reset: status %d of a link that is down", s)
	}
}
