package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// classNet is where the kernel tells about interfaces (Documentation/ABI/testing/sysfs-class-net-statistics).
const classNet = "/sys/class/net"

// tapCounters are the kernel's counters of a tap by the names that a guest has for them:
// what the host receives from the tap is what the guest transmits. Errors are added up.
var tapCounters = map[string][]string{
	"rx_packets": {"tx_packets"}, "rx_bytes": {"tx_bytes"}, "rx_dropped": {"tx_dropped"},
	"tx_packets": {"rx_packets"}, "tx_bytes": {"rx_bytes"}, "tx_dropped": {"rx_dropped"},
	"errors": {"rx_errors", "tx_errors"},
}

// TapCounters returns how many packets and bytes have passed a tap, by the names and in
// the directions of its guest.
func (s *Set) TapCounters(name string) (map[string]uint64, error) {
	out, err := readTapCounters(filepath.Join(classNet, name, "statistics"))
	if err != nil {
		return nil, err
	}
	limits, err := limitCounters(name)
	if err != nil {
		return nil, fmt.Errorf("count packets: %w", err)
	}
	for name, n := range limits {
		out[name] += n
	}
	return out, nil
}

func readTapCounters(dir string) (map[string]uint64, error) {
	out := make(map[string]uint64, len(tapCounters))
	for name, files := range tapCounters {
		for _, file := range files {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return nil, fmt.Errorf("count packets: %w", err)
			}
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("count packets: %s: %w", file, err)
			}
			out[name] += n
		}
	}
	return out, nil
}
