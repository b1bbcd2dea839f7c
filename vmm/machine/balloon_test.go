package machine

import (
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/balloon"
)

// A guest without a driver is asked, and gives nothing.
func TestBalloon(t *testing.T) {
	const most = testMemory - protocol.BalloonLeaves
	s := newSpec(t, tinykernel.Code{}.Spin())
	s.BalloonBytes = 4096
	g := s.loaded(t)
	start(t, g)
	if got := g.Balloon(); got.TargetBytes != 4096 || got.ActualBytes != 0 || !got.StatisticsTime.IsZero() {
		t.Errorf("balloon = %+v", got)
	}
	if err := g.SetBalloon(most); err != nil {
		t.Error(err)
	}
	for _, bytes := range []uint64{most + 4096, 1} {
		if err := g.SetBalloon(bytes); err == nil || err.Field != "balloonBytes" || !strings.Contains(err.Message, balloon.ErrTarget.Error()) {
			t.Errorf("SetBalloon(%d) = %v, want ErrTarget of balloonBytes", bytes, err)
		}
	}
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := g.SetBalloon(8192); err != nil {
		t.Errorf("SetBalloon in a pause = %v", err)
	}
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := g.Balloon(); got.TargetBytes != 8192 {
		t.Errorf("balloon = %+v", got)
	}
	if _, ok := g.Counters().Devices["balloon.inflated_bytes"]; !ok {
		t.Error("the balloon does not count")
	}
}
