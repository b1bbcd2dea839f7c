package e2e

import (
	"context"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// TestSoakPowerCuts cuts the power of the host at random moments, while a guest writes, and
// others come and go. The host boots, its store is whole, what the guest had flushed is on
// its disk, what was promised is kept, and nothing is there by half.
func TestSoakPowerCuts(t *testing.T) {
	s := newSoak(t, 1, 100)
	h := newHost(t, options{})
	h.create(t, "keeper", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	m := newMess(h, s.seed)
	acknowledged := 0
	for s.next() {
		h.boot(t, "keeper")
		ctx, cancel := context.WithCancel(t.Context())
		keeper := h.witness(ctx, "keeper", acknowledged)
		h.logs(t, keeper)
		worked := make(chan struct{})
		go func() { defer close(worked); m.work(ctx, nil) }()
		s.pause(5 * time.Second)
		select {
		case <-worked:
			t.Fatal(m.err)
		default:
		}
		if err := h.Cut(); err != nil {
			t.Fatal(err)
		}
		cancel() // what was under way may be done or not
		<-worked
		m.err, acknowledged = nil, keeper.acknowledged()
		t.Logf("cut %d: after write %d, and %d of others' doings", s.step, acknowledged, m.done)
		h.reboot(t)
		if vm := h.settled(t, "keeper"); vm.State != v1.VirtualMachine_STATE_STOPPED {
			t.Errorf("after the power cut the guest is %v", vm.State)
		}
		m.kept(t)
		h.consistent(t)
	}
	h.boot(t, "keeper")
	h.logs(t, h.witness(t.Context(), "keeper", acknowledged))
}
