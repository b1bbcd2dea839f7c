package nvme

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrimary(t *testing.T) {
	p := make(page, identifySize)
	p[4] = 1 // queues alone
	binary.LittleEndian.PutUint32(p[32:], 40)
	binary.LittleEndian.PutUint16(p[40:], 3)
	binary.LittleEndian.PutUint16(p[44:], 8)
	binary.LittleEndian.PutUint16(p[46:], 2)
	want := map[resource]flexible{queues: {has: true, total: 40, primary: 3, most: 8, grain: 2}, interrupts: {grain: 1}}
	if d := cmp.Diff(want, primaryOf(p), cmp.AllowUnexported(flexible{})); d != "" {
		t.Errorf("primaryOf (-want +got):\n%s", d)
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		f      flexible
		r      resource
		n      int
		each   int
		enough int // where there is too little
	}{
		{flexible{total: 4, grain: 1}, queues, 2, 2, 0},
		{flexible{total: 4, grain: 1}, queues, 3, 0, 2},
		{flexible{total: 40, most: 8, grain: 1}, queues, 2, 8, 0},
		{flexible{total: 40, grain: 4}, queues, 3, 12, 0},
		{flexible{total: 7, grain: 4}, queues, 2, 0, 1},
		{flexible{total: 2, grain: 1}, interrupts, 2, 1, 0},
		{flexible{total: 0, grain: 1}, interrupts, 1, 0, 0},
	} {
		each, err := tt.f.share(tt.r, tt.n)
		var few *TooFew
		if each != tt.each || (each == 0) != errors.As(err, &few) || few != nil && few.Can != tt.enough {
			t.Errorf("%+v shared by %d = %d, %v", tt.f, tt.n, each, err)
		}
	}
}

func TestStatus(t *testing.T) {
	const retry = 0x4000
	err := error(Status(retry | 0x118))
	if !isStatus(err, AlreadyAttached) || isStatus(err, NotAttached) || !strings.Contains(err.Error(), "already") {
		t.Errorf("status %v", err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bus/pci/devices/0000:01:00.0/nvme/nvme3"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := find(root, "0000:01:00.0"); got != "nvme3" || err != nil {
		t.Errorf("find = %s, %v", got, err)
	}
	if got, err := find(root, "0000:02:00.0"); got != "" || err == nil {
		t.Errorf("find of what there is not = %s, %v", got, err)
	}
}

// What a controller says is within bounds, whatever it says.
func FuzzLists(f *testing.F) {
	b := make([]byte, identifySize)
	b[0] = 2
	binary.LittleEndian.PutUint16(b[32:], 5)
	b[36] = 1
	binary.LittleEndian.PutUint16(b[40:], 1)
	f.Add(b)
	f.Add(slices.Repeat([]byte{0xff}, identifySize))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := append(page(b), make(page, identifySize)...)[:identifySize]
		if got := secondariesOf(p); len(got) > 127 {
			t.Errorf("%d controllers", len(got))
		}
		if got := namespacesOf(p); len(got) > maxList || slices.Contains(got, 0) {
			t.Errorf("namespaces %v", got)
		}
		if got := controllersOf(p); len(got) > 2047 {
			t.Errorf("%d controllers", len(got))
		}
		primaryOf(p)
	})
}

func TestSecondaries(t *testing.T) {
	p := make(page, identifySize)
	p[0] = 1
	copy(p[32:], []byte{7, 0, 1, 0, 1, 0, 0, 0, 3, 0, 4, 0, 2, 0})
	want := []Secondary{{ID: 7, Online: true, Function: 3, Queues: 4, Interrupts: 2}}
	if d := cmp.Diff(want, secondariesOf(p)); d != "" {
		t.Errorf("secondariesOf (-want +got):\n%s", d)
	}
}
