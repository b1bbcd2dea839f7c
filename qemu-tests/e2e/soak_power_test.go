package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
	"github.com/ashlar-hv/ashlar/qemu-tests/writecache"
)

// TestSoakPowerCuts cuts the power of the host at random moments, while a guest writes, and
// others come and go. The data disk has a write cache, of which it loses some or all that was not
// flushed. The host boots, its store is whole, what the guest had flushed is on its disk, what was
// promised is kept, and nothing is there by half.
func TestSoakPowerCuts(t *testing.T) {
	s := newSoak(t, 1, 100)
	h := newHost(t, options{cache: true})
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
		h.lose(t, s)
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

// diskSocket is where the data disk of a host in dir is served that has a write cache; "" where
// it has none.
func (h *host) diskSocket(dir string) string {
	if h.cache == nil {
		return ""
	}
	return filepath.Join(dir, "disk.sock")
}

// serveDisk gives h a data disk with a write cache.
func (h *host) serveDisk(t testing.TB, dir string) {
	t.Helper()
	d, err := writecache.Serve(filepath.Join(dir, lab.DiskFile), 16<<30, filepath.Join(dir, "disk.sock"))
	if err != nil {
		t.Fatal(err)
	}
	h.cache = d
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// lose is what the cut of the power does to the data disk: one by the seed, the first of them
// some of the cache.
func (h *host) lose(t testing.TB, s *soak) {
	t.Helper()
	loss := writecache.Some
	if s.step > 1 {
		loss = writecache.Loss(s.rng.IntN(3))
	}
	cached, lost, err := h.cache.Cut(loss, s.rng)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut %d: %v is lost: of %d writes in the cache all of, or a part of, %d", s.step, loss, cached, lost)
}
