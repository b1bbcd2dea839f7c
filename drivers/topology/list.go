package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// maxNumber bounds the numbers of a list: a list is what the kernel wrote, but a mistake
// in it is not to cost all memory.
const maxNumber = 1 << 16

// ParseList reads a list of numbers as the kernel writes them: `0-3,8` (Documentation/
// admin-guide/cputopology.rst). An empty list is one of no numbers.
func ParseList(s string) ([]int, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("list %q: %q: want a number up to %d", s, first, maxNumber-1)
		}
		to, err := strconv.ParseUint(last, 10, 16)
		if err != nil || to < from {
			return nil, fmt.Errorf("list %q: %q: want a number from %d to %d", s, last, from, maxNumber-1)
		}
		if len(out)+int(to-from) >= maxNumber {
			return nil, fmt.Errorf("list %q has over %d numbers", s, maxNumber)
		}
		for n := int(from); n <= int(to); n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

// FormatList writes ascending numbers as ParseList reads them.
func FormatList(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := strconv.Itoa(numbers[i])
		if j > i {
			part += "-" + strconv.Itoa(numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
