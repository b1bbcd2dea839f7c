package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// parseMemory reads what --memory says: a size, and transparent or 4KiB, and populate,
// with commas between.
func parseMemory(v string) (uint64, *protocol.Backing, error) {
	size, rest, more := strings.Cut(v, ",")
	n, err := parseSize(size)
	if err != nil || !more {
		return n, nil, err
	}
	b := &protocol.Backing{}
	for word := range strings.SplitSeq(rest, ",") {
		switch word {
		case string(protocol.TransparentPages), string(protocol.SmallPages):
			b.Pages = protocol.Pages(word)
		case "populate":
			b.Populate = true
		default:
			return 0, nil, fmt.Errorf("memory %q: want transparent, 4KiB or populate behind the size", v)
		}
	}
	return n, b, nil
}

// parseSize reads a number with MiB or GiB behind it.
func parseSize(s string) (uint64, error) {
	for suffix, unit := range map[string]uint64{"MiB": 1 << 20, "GiB": 1 << 30} {
		if num, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(num, 10, 20)
			if err != nil {
				break
			}
			return n * unit, nil
		}
	}
	return 0, fmt.Errorf("memory %q: want a number and MiB or GiB", s)
}
