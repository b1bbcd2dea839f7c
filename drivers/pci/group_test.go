package pci

import (
	"errors"
	"io/fs"
	"testing"
)

// Devices are found by the names that stay, and the groups have all of theirs.
func TestResolve(t *testing.T) {
	inv, err := find(tree(t, record(t)), Host{})
	if err != nil {
		t.Fatal(err)
	}
	members, grouped := 0, 0
	seen := map[int]bool{}
	for _, address := range inv.Addresses() {
		d, err := inv.Read(address)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := inv.Resolve("path-" + d.Path); got != address || err != nil {
			t.Errorf("path-%s is %q, %v; want %s", d.Path, got, err, address)
		}
		if d.Group >= 0 {
			grouped++
		}
		if d.Group < 0 || seen[d.Group] {
			continue
		}
		seen[d.Group] = true
		found := false
		for _, m := range inv.Group(d.Group) {
			members++
			found = found || m.Address == address && m.Driver == d.Driver && m.Bridge == (d.Class>>16 == classBridge)
		}
		if !found {
			t.Errorf("group %d has %v, not %s", d.Group, inv.Group(d.Group), address)
		}
	}
	if members != grouped || grouped == 0 {
		t.Errorf("the groups have %d members, %d devices are in some", members, grouped)
	}
	for _, name := range []string{"path-0000:00-99.0", "path-", "dsn-none", "", "0000:00:00.0"} {
		if got, err := inv.Resolve(name); got != "" || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}
