package pci

import (
	"errors"
	"io/fs"
	"testing"
)

// Each device is found where it is, and nowhere else.
func TestLocate(t *testing.T) {
	inv, err := find(tree(t, record(t)), Host{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range inv.Addresses() {
		p, err := inv.Path(a)
		if err != nil {
			t.Fatal(err)
		}
		d, err := inv.Read(a)
		if err != nil || d.Path != p || seen[p] {
			t.Errorf("%s is at %s, or at %v, %v", a, p, d, err)
		}
		seen[p] = true
		if got, err := inv.Locate(p); err != nil || got != a {
			t.Errorf("at %s is %s, %v; want %s", p, got, err, a)
		}
	}
	if got, err := inv.Locate("0000:00-99.0"); got != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("at no place is %q, %v", got, err)
	}
}
