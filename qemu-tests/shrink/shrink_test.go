package shrink

import (
	"slices"
	"testing"
)

func TestSteps(t *testing.T) {
	all := make([]int, 100)
	for i := range all {
		all[i] = i
	}
	for _, tt := range []struct {
		name string
		need []int // all of these have to be there
		most int   // replays
	}{
		{"the last", []int{99}, 1},
		{"one in the middle", []int{41}, 40},
		{"two far apart", []int{3, 99}, 60},
		{"three", []int{10, 50, 51}, 100},
		{"all", all, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries := 0
			got := Steps(all, func(s []int) bool {
				tries++
				if !slices.IsSorted(s) {
					t.Errorf("replay of %v, out of order", s)
				}
				return !slices.ContainsFunc(tt.need, func(n int) bool { return !slices.Contains(s, n) })
			})
			if !slices.Equal(got, tt.need) || tries > tt.most {
				t.Errorf("%v after %d replays, want %v after %d at most", got, tries, tt.need, tt.most)
			}
		})
	}
	if got := Steps([]int{7}, func([]int) bool { t.Error("one step is not replayed"); return true }); !slices.Equal(got, []int{7}) {
		t.Errorf("one step is shrunk to %v", got)
	}
}
