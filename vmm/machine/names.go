package machine

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// maxNumber bounds the Numbers of disks and network devices.
const maxNumber = 9999

func diskName(number int) string { return fmt.Sprintf("disk%d", number) }
func nicName(number int) string  { return fmt.Sprintf("nic%d", number) }
func vfioName(number int) string { return fmt.Sprintf("vfio%d", number) }

// checkNumber checks the Number of what is described in the field.
func checkNumber(field string, n int) *protocol.Error {
	if n < 0 || n > maxNumber {
		return invalid(field+".number", "number %d: want 0 to %d", n, maxNumber)
	}
	return nil
}

// numbers are the Numbers of what the field lists: its places where all are 0.
func numbers[T any](field string, list []T, number func(T) int) ([]int, *protocol.Error) {
	out := make([]int, len(list))
	places := true
	for i, v := range list {
		out[i] = number(v)
		places = places && out[i] == 0
	}
	at := make(map[int]int)
	for i := range out {
		if places {
			out[i] = i
		}
		place := fmt.Sprintf("%s[%d]", field, i)
		if perr := checkNumber(place, out[i]); perr != nil {
			return nil, perr
		}
		if other, ok := at[out[i]]; ok {
			return nil, invalid(place+".number", "number %d is that of %s[%d] too", out[i], field, other)
		}
		at[out[i]] = i
	}
	return out, nil
}
