// Package shrink makes a list of steps that fails shorter, after "Simplifying and Isolating
// Failure-Inducing Input" by Zeller and Hildebrandt (2002): delta debugging.
package shrink

import "slices"

// Steps returns a part of steps, in their order, that still fails, and does not any more without
// any one of its steps, as far as fails always says the same of the same. steps fail as a whole.
func Steps(steps []int, fails func([]int) bool) []int {
	// The last step is the one that was seen to fail: often it alone does.
	if n := len(steps); n > 1 && fails(steps[n-1:]) {
		return slices.Clone(steps[n-1:])
	}
	for parts := 2; len(steps) > 1; {
		size := (len(steps) + parts - 1) / parts
		shorter := false
		for at := 0; at < len(steps); at += size {
			rest := slices.Concat(steps[:at], steps[min(at+size, len(steps)):])
			if fails(rest) {
				steps, shorter = rest, true
				break
			}
		}
		switch {
		case shorter:
			parts = max(parts-1, 2)
		case size == 1:
			return steps
		default:
			parts = min(2*parts, len(steps))
		}
	}
	return steps
}
