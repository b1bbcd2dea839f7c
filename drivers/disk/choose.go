package disk

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

// ownPrefix begins the labels of the partitions of a boot stick.
const ownPrefix = "ASHLAR-"

// A Wish names a disk by exactly one of Serial, Path, Model and Any.
type Wish struct {
	Serial, Path, Model string
	Any                 bool
	// Erase: the disk is formatted even if it holds something else.
	Erase bool
}

func (w Wish) String() string {
	switch {
	case w.Serial != "":
		return "serial " + w.Serial
	case w.Path != "":
		return "path " + w.Path
	case w.Model != "":
		return "model " + w.Model
	}
	return "any disk"
}

// resolve is filepath.EvalSymlinks: a path can be a link to the node. Tests
// have no device nodes.
var resolve = filepath.EvalSymlinks

func (w Wish) matches(d Disk) bool {
	switch {
	case w.Serial != "":
		return d.Serial == w.Serial
	case w.Path != "":
		node, err := resolve(w.Path)
		return err == nil && node == d.Node || w.Path == d.Node
	case w.Model != "":
		return d.Model == w.Model
	}
	return w.Any
}

// An Action is what is to be done with a chosen disk.
type Action int

// Actions.
const (
	// Mount: it is ours already.
	Mount Action = iota
	// Format: it is blank, or may be erased; then mount it.
	Format
)

// A Choice is a disk and what to do with it.
type Choice struct {
	Disk   Disk
	Action Action
	// Erases is what goes lost, in a few words.
	Erases string
}

// Choose goes through the wishes in order and the disks by name; the first disk
// that matches and can be used is taken. A wish for any disk takes one that is
// ours before it takes a blank one, and never erases one that another disk can
// stand in for. inspect is Inspect on the disk. The problems are sentences
// about wishes that could not be met, and why.
func Choose(disks []Disk, wishes []Wish, inspect func(Disk) (Content, string, error)) (c *Choice, problems []string) {
	for _, w := range wishes {
		var best *Choice
		var refusals []string
		matched := false
		for _, d := range disks {
			if !w.matches(d) {
				continue
			}
			if why := unusable(d); why != "" {
				if !w.Any {
					matched = true
					refusals = append(refusals, fmt.Sprintf("The disk %v, wished for as data disk by %v, cannot be used: %s.", d, w, why))
				}
				continue
			}
			matched = true
			next, problem := consider(d, w, inspect)
			if problem != "" {
				refusals = append(refusals, problem)
			}
			if next != nil && (best == nil || rank(next) < rank(best)) {
				best = next
			}
		}
		if best != nil {
			return best, problems
		}
		problems = append(problems, refusals...)
		if !matched {
			problems = append(problems, fmt.Sprintf("No disk matches %v, wished for as data disk.", w))
		}
	}
	return nil, problems
}

// rank orders choices: what destroys least comes first.
func rank(c *Choice) int {
	switch {
	case c.Action == Mount:
		return 0
	case c.Erases == "":
		return 1
	}
	return 2
}

// unusable says why a disk can never be the data disk.
func unusable(d Disk) string {
	for _, p := range d.Partitions {
		if strings.HasPrefix(p.Label, ownPrefix) {
			return "it is a boot stick"
		}
	}
	switch {
	case d.ReadOnly:
		return "it is read-only"
	case d.Size < xfs.MinSize:
		return fmt.Sprintf("it is smaller than %s", size(xfs.MinSize))
	case d.Size > xfs.MaxSize:
		return fmt.Sprintf("it is larger than %s", size(xfs.MaxSize))
	}
	return ""
}

func consider(d Disk, w Wish, inspect func(Disk) (Content, string, error)) (*Choice, string) {
	content, what, err := inspect(d)
	switch {
	case err != nil:
		return nil, fmt.Sprintf("The disk %v cannot be read: %v.", d, err)
	case content == Data:
		return &Choice{Disk: d, Action: Mount}, ""
	case content == Blank:
		return &Choice{Disk: d, Action: Format}, ""
	case w.Erase && !(w.Any && d.Removable):
		return &Choice{Disk: d, Action: Format, Erases: what}, ""
	case w.Erase:
		return nil, fmt.Sprintf("The disk %v holds %s and is removable: name it by serial, path or model to have it erased.", d, what)
	}
	return nil, fmt.Sprintf("The disk %v holds %s. It was left alone: to have it erased and used, set erase: true for it in the configuration.", d, what)
}
