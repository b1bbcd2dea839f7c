package guest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestChooseCID(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	taken := map[uint32]bool{0: true} // of guests without a socket device
	first := chooseCID(id, taken)
	if first < protocol.MinCID || first > protocol.MaxCID {
		t.Errorf("CID %d", first)
	}
	if again := chooseCID(id, taken); again != first {
		t.Errorf("CID %d at one start, %d at the next", first, again)
	}
	for range 200 { // guests that want the same
		cid := chooseCID(id, taken)
		if taken[cid] || cid < protocol.MinCID || cid > protocol.MaxCID {
			t.Fatalf("CID %d is taken, or none", cid)
		}
		taken[cid] = true
	}
	other := map[uint32]bool{}
	for i := range 128 {
		other[chooseCID(fmt.Sprintf("%032x", i), nil)] = true
	}
	if len(other) < 128 {
		t.Errorf("128 guests would like %d CIDs", len(other))
	}
}

func TestRecordCID(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for cid, good := range map[uint32]bool{0: true, 1: false, 2: false, 3: true, 1<<32 - 2: true, 1<<32 - 1: false} {
		b, err := json.Marshal(record{ID: id, CID: cid})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeRecord(b, id); (err == nil) != good || good && got.CID != cid {
			t.Errorf("CID %d: %+v, %v", cid, got, err)
		}
	}
}
