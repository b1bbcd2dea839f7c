package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
)

// controllers are those that the host's groups use, as cgroup.subtree_control
// takes them.
var controllers = []string{"+cpu", "+cpuset", "+memory", "+io", "+pids", "+hugetlb"}

// A Group is a cgroup and its limits.
type Group struct {
	Path     string
	Settings []Setting
	// Delegates: the controllers are enabled for the groups below it.
	Delegates bool
}

// Groups are the groups below layout.CgroupRoot. The guests' own limits are
// core's business.
var Groups = []Group{
	{Path: layout.ControlCgroup, Settings: []Setting{
		{"memory.min", "64M"},     // never reclaimed: the API answers whatever guests do
		{"memory.max", "1G"},      // and a control that runs wild takes nobody's memory
		{"memory.oom.group", "1"}, // it goes as a whole and comes back
		{"cpu.weight", "1000"},    // ten times the guests' share together
		{"pids.max", "512"},       // threads
	}},
	{Path: layout.CoreCgroup, Settings: []Setting{
		{"memory.min", "64M"},
		{"cpu.weight", "1000"},
		{"pids.max", "1024"},
	}},
	{Path: layout.GuestCgroup, Settings: []Setting{{"cpu.weight", "100"}}, Delegates: true},
}

// Cgroups makes the groups. A controller that the kernel lacks is an error, but
// the others are enabled all the same.
func Cgroups(root string, groups []Group) error {
	errs := []error{enable(root)}
	for _, g := range groups {
		if err := os.MkdirAll(g.Path, 0o755); err != nil {
			errs = append(errs, fmt.Errorf("make cgroup %s: %w", g.Path, err))
			continue
		}
		errs = append(errs, Apply(g.Path, g.Settings))
		if g.Delegates {
			errs = append(errs, enable(g.Path))
		}
	}
	return errors.Join(errs...)
}

// enable switches the controllers on for the groups below group.
func enable(group string) error {
	var errs []error
	for _, c := range controllers {
		file := filepath.Join(group, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte(c), 0); err != nil {
			errs = append(errs, fmt.Errorf("enable controller %s in %s: %w", c[1:], group, err))
		}
	}
	return errors.Join(errs...)
}
