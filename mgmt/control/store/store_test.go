package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	vm := VM{ID: "demo", UID: "0123", Phase: Creating, Disks: []Disk{{Image: "a", Size: 512}}, NICs: []NIC{{Network: "n", MAC: "m"}}, CreateTime: time.Now().UTC()}
	op := Operation{ID: "1", Deadline: time.Now().UTC(), Grace: time.Second}
	err := s.Update(func(tx *Tx) error {
		return errors.Join(VMs.Put(tx, vm), Operations.Put(tx, op), Images.Put(tx, Image{UID: "i"}), Requests.Put(tx, Request{Key: "r"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	err = s.Update(func(tx *Tx) error {
		return errors.Join(VMs.Delete(tx, vm.UID), Images.Delete(tx, "i"), refused)
	})
	if !errors.Is(err, refused) {
		t.Errorf("error of the function: %v", err)
	}
	s.Close()
	s = open(t, path)
	defer s.Close()
	err = s.View(func(tx *Tx) error {
		got, ok, err := VMs.Get(tx, vm.UID)
		if diff := cmp.Diff(vm, got); !ok || err != nil || diff != "" {
			t.Errorf("machine: %v, %v, %s", ok, err, diff)
		}
		gotOp, _, err := Operations.Get(tx, "1")
		if diff := cmp.Diff(op, gotOp); diff != "" {
			t.Error(diff)
		}
		if _, ok, _ := Images.Get(tx, "i"); !ok {
			t.Error("a refused transaction has deleted")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open(t, path).Close()
	change(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(schemaKey, binary.BigEndian.AppendUint64(nil, Schema+1))
	})
	if _, err := Open(path); !errors.Is(err, ErrNewer) {
		t.Errorf("Open = %v, want ErrNewer", err)
	}
}

func change(t *testing.T, path string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
	db.Close()
}

func TestBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	defer s.Close()
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("Open = %v, want ErrBusy", err)
	}
}

// Whatever is wrong with the file, Open says so and leaves it as it is.
func TestDamaged(t *testing.T) {
	good := filepath.Join(t.TempDir(), "db")
	s := open(t, good)
	err := s.Update(func(tx *Tx) error {
		for i := range 200 {
			id := string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})
			if err := VMs.Put(tx, VM{UID: id, Cmdline: string(bytes.Repeat([]byte("x"), 100))}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"garbage":       func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) },
		"cut off":       func(b []byte) []byte { return b[:3*os.Getpagesize()] },
		"zeroed behind": func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b },
		"overwritten": func(b []byte) []byte {
			copy(b[3*os.Getpagesize():], bytes.Repeat([]byte{0xff}, 2*os.Getpagesize()))
			return b
		},
		"a bad record": func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`{"id":"","uid":"aa"`), []byte(`["id":"","uid":"aa"`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			bad := damage(bytes.Clone(whole))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("Open = %v, want ErrDamaged", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, bad) {
				t.Error("the file was changed")
			}
		})
	}
}
