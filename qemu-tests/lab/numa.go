package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// farBytes is how much memory the second NUMA node has.
const farBytes = 1 << 30

// numa are the options of QEMU that give the machine two NUMA nodes, where it has the
// memory for them: a quarter or 1 GiB of it is of the second, whichever is less, and
// half of the CPUs, none where there is one. A machine whose options say something of
// nodes has those.
func (l *Lab) numa(memory string, cpus int) ([]string, error) {
	if slices.Contains(l.Args, "-numa") || slices.Contains(l.Args, "-m") {
		return nil, nil
	}
	size, err := parseSize(memory)
	if err != nil {
		return nil, err
	}
	far := min(farBytes, size/4) &^ (2<<20 - 1)
	if far == 0 {
		return nil, nil
	}
	near := size - far
	nearCPUs, farCPUs := fmt.Sprintf(",cpus=0-%d", cpus-1), ""
	if half := cpus / 2; half > 0 {
		nearCPUs, farCPUs = fmt.Sprintf(",cpus=0-%d", cpus-half-1), fmt.Sprintf(",cpus=%d-%d", cpus-half, cpus-1)
	}
	return []string{
		"-object", fmt.Sprintf("memory-backend-ram,id=near,size=%d", near),
		"-object", fmt.Sprintf("memory-backend-ram,id=far,size=%d", far),
		"-numa", "node,nodeid=0,memdev=near" + nearCPUs,
		"-numa", "node,nodeid=1,memdev=far" + farCPUs,
		"-numa", "dist,src=0,dst=1,val=21",
	}, nil
}

// parseSize reads a size as QEMU's -m has it: MiB where there is no unit.
func parseSize(s string) (uint64, error) {
	shift := 20
	number := s
	if s != "" {
		if i := strings.IndexByte("KMGT", s[len(s)-1]&^0x20); i >= 0 {
			shift, number = 10*(i+1), s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(number, 10, 23)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("memory %q: want a size such as 4G or 4096", s)
	}
	return n << shift, nil
}
