package machine

import (
	"fmt"
	"strconv"
	"strings"
)

// parseMAC reads six bytes such as 52:54:00:12:34:56.
func parseMAC(s string) ([]byte, error) {
	mac := make([]byte, 6)
	parts := strings.Split(s, ":")
	if len(parts) != len(mac) {
		return nil, fmt.Errorf("has %d bytes, want %d with colons between", len(parts), len(mac))
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) != 2 {
			return nil, fmt.Errorf("byte %d is %q, want two hexadecimal digits", i, p)
		}
		mac[i] = byte(v)
	}
	return mac, nil
}
