//go:build roottest

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
)

// The store on a disk that fails says so and ends nothing, be it all of the disk or only what a
// transaction writes last. When the disk works again all is there that was acknowledged, and nothing by half.
func TestDiskFails(t *testing.T) {
	failing := scratch.NewFailing(t, scratch.Node(t))
	for _, tt := range []struct {
		name string
		fail func(path string)
	}{
		{"all of it", func(string) { failing.FailAll() }},
		{"where each transaction ends", func(path string) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			failing.FailFile(f, 0, 2*4096) // bbolt's meta pages, of which the newer one holds
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scratch.Format(t, failing.Node)
			dir, unmount := scratch.Mount(t, failing.Node)
			path := filepath.Join(dir, "db")
			s := open(t, path)
			acknowledged := 0
			for ; acknowledged < 20; acknowledged++ {
				if err := put(s, acknowledged); err != nil {
					t.Fatal(err)
				}
			}
			tt.fail(path)
			for range 3 {
				if err := put(s, acknowledged); !errors.Is(err, ErrDisk) {
					t.Errorf("Update = %v, want ErrDisk", err)
				}
			}
			// What is in memory can be read; what is not is an error.
			if err := s.View(func(tx *Tx) error { return VMs.Each(tx, func(VM) error { return nil }) }); err != nil && !errors.Is(err, ErrDisk) {
				t.Errorf("View = %v, want ErrDisk, or none", err)
			}
			failing.Heal()
			// Without a restart it may refuse or not; what it acknowledges is kept.
			late := 100
			for ; late < 110; late++ {
				if err := put(s, late); err != nil {
					t.Logf("write %d when the disk works again: %v", late, err)
					break
				}
			}
			if err := s.Close(); err != nil {
				t.Logf("close: %v", err)
			}
			unmount()
			dir, _ = scratch.Mount(t, failing.Node)
			s = open(t, filepath.Join(dir, "db"))
			kept := []int{}
			for n := range acknowledged {
				kept = append(kept, n)
			}
			for n := 100; n < late; n++ {
				kept = append(kept, n)
			}
			holds(t, s, kept)
			if err := put(s, 200); err != nil {
				t.Errorf("write after all: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// holds checks that all that was acknowledged is there, and nothing by half.
func holds(t *testing.T, s *Store, acknowledged []int) {
	t.Helper()
	if err := s.View(func(tx *Tx) error {
		var err error
		for _, n := range acknowledged {
			vm, ok, gerr := VMs.Get(tx, fmt.Sprint("vm", n))
			if gerr != nil || !ok || len(vm.Cmdline) != 2000 {
				err = errors.Join(err, fmt.Errorf("vm%d, which was acknowledged: %v, %d bytes, %w", n, ok, len(vm.Cmdline), gerr))
			}
		}
		return errors.Join(err, VMs.Each(tx, func(vm VM) error {
			if len(vm.Cmdline) != 2000 {
				return fmt.Errorf("%s is there by half", vm.UID)
			}
			return nil
		}))
	}); err != nil {
		t.Error(err)
	}
}

// On a disk that fails by the clock, anywhere in a transaction, the store keeps what it acknowledged.
func TestDiskFlickers(t *testing.T) {
	failing := scratch.NewFailing(t, scratch.Node(t))
	scratch.Format(t, failing.Node)
	var acknowledged []int
	refused := 0
	for round := range 3 {
		dir, unmount := scratch.Mount(t, failing.Node)
		s := open(t, filepath.Join(dir, "db"))
		failing.Flicker(scratch.Everything)
		for began, n := time.Now(), 0; time.Since(began) < 2500*time.Millisecond; n++ {
			switch err := put(s, 10000*round+n); {
			case err == nil:
				acknowledged = append(acknowledged, 10000*round+n)
			case errors.Is(err, ErrDisk):
				refused++
				time.Sleep(10 * time.Millisecond) // as nobody asks again at once
			default:
				t.Fatalf("Update = %v, want ErrDisk", err)
			}
		}
		failing.Heal()
		if err := s.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		unmount()
		dir, unmount = scratch.Mount(t, failing.Node)
		s = open(t, filepath.Join(dir, "db"))
		holds(t, s, acknowledged)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		unmount()
	}
	t.Logf("%d acknowledged, %d refused", len(acknowledged), refused)
	if len(acknowledged) == 0 || refused == 0 {
		t.Error("want both")
	}
}
