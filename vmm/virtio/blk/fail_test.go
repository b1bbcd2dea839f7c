package blk

import "testing"

// TestFail has a disk answer with errors what waits for its limits and what comes after
// that, and say whether a driver uses it.
func TestFail(t *testing.T) {
	r := newLimitedRig(t, Limits{OperationsPerSecond: 10, BurstOperations: 1}, 1)
	ring := r.rings[0]
	r.ok(ring, r.read(ring, 512))
	held := r.read(ring, 512)
	r.throttled(1)
	if active, err := r.dev.Fail(); !active || err != nil {
		t.Fatalf("Fail = %v, %v", active, err)
	}
	ring.Wait()
	later := r.read(ring, 512)
	ring.Wait()
	for _, status := range []byte{r.M.Bytes(held)[0], r.M.Bytes(later)[0]} {
		if status != statusIOErr {
			t.Errorf("status = %d, want %d", status, statusIOErr)
		}
	}
	if n := r.dev.Answered(); n != 2 {
		t.Errorf("%d requests were answered with errors, want 2", n)
	}
	r.Reset()
	if active, err := r.dev.Fail(); active || err != nil {
		t.Errorf("Fail of a disk that nobody uses = %v, %v", active, err)
	}
}
