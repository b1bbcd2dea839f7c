package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func put(s *Store, n int) error {
	return s.Update(func(tx *Tx) error {
		return VMs.Put(tx, VM{UID: fmt.Sprint("vm", n), Cmdline: string(bytes.Repeat([]byte("x"), 2000))})
	})
}

// On a full disk the store takes what fits in the room that it has kept, refuses what does
// not, and goes on as soon as there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatalf("mount a small file system: %v: this test runs as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, filepath.Join(dir, "db"))
	filler := filepath.Join(dir, "filler")
	fill, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = fill.Write(b)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for n := range 100 { // more than what happens while an operator makes room
		if err := put(s, n); err != nil {
			t.Fatalf("write %d on a full disk: %v", n, err)
		}
	}
	n := 100
	for ; err == nil || errors.Is(err, unix.ENOSPC) && !errors.Is(err, ErrFull); n++ {
		if err = put(s, n); n > 100_000 {
			t.Fatal("the disk does not get full")
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("write %d: %v, want ErrFull", n, err)
	}
	if err := s.View(func(tx *Tx) error {
		if _, ok, err := VMs.Get(tx, "vm99"); !ok || err != nil {
			return fmt.Errorf("there: %v, %w", ok, err)
		}
		if _, ok, _ := VMs.Get(tx, fmt.Sprint("vm", n-1)); ok {
			return errors.New("what was refused is there")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	fill.Close()
	if err := put(s, n); err != nil {
		t.Errorf("write with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, filepath.Join(dir, "db")) // which reads all of it
}

// A file that cannot be read any more is an error, and no end of the process.
func TestFaultingDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	for n := range 20 {
		if err := put(s, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 0); err != nil { // as where reading a page fails
		t.Fatal(err)
	}
	for range 2 {
		if err := s.View(func(tx *Tx) error { return VMs.Each(tx, func(VM) error { return nil }) }); !errors.Is(err, ErrDisk) {
			t.Errorf("View = %v, want ErrDisk", err)
		}
		if err := put(s, 1); !errors.Is(err, ErrDisk) {
			t.Errorf("Update = %v, want ErrDisk", err)
		}
	}
	select {
	case <-s.Broken():
	default:
		t.Error("not broken")
	}
}
