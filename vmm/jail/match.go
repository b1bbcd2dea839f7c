package jail

import (
	"fmt"
	"strings"
)

// Match returns the place in rules of the first one that decides about system call nr
// with args, as the filter does it; -1 where none does.
func Match(rules []Rule, nr uint32, args [6]uint64) int {
	for i, r := range rules {
		if r.Syscall == nr && r.holds(args) {
			return i
		}
	}
	return -1
}

func (r Rule) holds(args [6]uint64) bool {
	for _, a := range r.Args {
		if args[a.Index]&a.Mask != a.Value {
			return false
		}
	}
	return true
}

// String names the call and the conditions of r: `16 1=0xae80`, `9 2&0x4=0x0`.
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", r.Syscall)
	for _, a := range r.Args {
		if fmt.Fprintf(&b, " %d", a.Index); a.Mask != ^uint64(0) {
			fmt.Fprintf(&b, "&%#x", a.Mask)
		}
		fmt.Fprintf(&b, "=%#x", a.Value)
	}
	return b.String()
}
