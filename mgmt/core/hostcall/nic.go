package hostcall

import "fmt"

// NICLimits bound what a NIC receives and sends; nil is no limit.
type NICLimits struct {
	Receive  *NetworkLimits `json:"receive,omitempty"`
	Transmit *NetworkLimits `json:"transmit,omitempty"`
}

// NetworkLimits bound what passes in a second in one direction, by a bucket of tokens each
// for bytes and for packets. 0 is no limit.
type NetworkLimits struct {
	BytesPerSecond uint64 `json:"bytesPerSecond,omitempty"`
	// BurstBytes and BurstPackets are what can pass at once after a rest: 0 is a quarter
	// of what a second brings, and not less than DefaultBurstBytes and DefaultBurstPackets.
	BurstBytes       uint64 `json:"burstBytes,omitempty"`
	PacketsPerSecond uint64 `json:"packetsPerSecond,omitempty"`
	BurstPackets     uint64 `json:"burstPackets,omitempty"`
}

// Bounds of NetworkLimits.
const (
	MinBytesPerSecond   = 64 << 10
	MaxBytesPerSecond   = 64 << 30
	MinPacketsPerSecond = 100
	MaxPacketsPerSecond = 100_000_000
	// MinBurstBytes lets the largest packets pass, which have 64 KiB between guest and
	// host and are cut up later.
	MinBurstBytes       = 128 << 10
	DefaultBurstBytes   = 256 << 10
	DefaultBurstPackets = 64
	// burstSeconds bounds a burst: so much of what a second brings.
	burstSeconds = 60
)

// Check says what is wrong with l, by its field.
func (l *NICLimits) Check() (field, wrong string) {
	if l == nil {
		return "", ""
	}
	if field, wrong = l.Receive.check(); wrong != "" {
		return "receive." + field, wrong
	}
	if field, wrong = l.Transmit.check(); wrong != "" {
		return "transmit." + field, wrong
	}
	return "", ""
}

func (l *NetworkLimits) check() (field, wrong string) {
	if l == nil {
		return "", ""
	}
	for _, b := range []struct {
		rateField, burstField string
		rate, least, most     uint64
		burst, burstMin       uint64
	}{
		{"bytesPerSecond", "burstBytes", l.BytesPerSecond, MinBytesPerSecond, MaxBytesPerSecond, l.BurstBytes, MinBurstBytes},
		{"packetsPerSecond", "burstPackets", l.PacketsPerSecond, MinPacketsPerSecond, MaxPacketsPerSecond, l.BurstPackets, 1},
	} {
		switch {
		case b.rate != 0 && (b.rate < b.least || b.rate > b.most):
			return b.rateField, fmt.Sprintf("is %d: %d to %d, or 0 for no limit", b.rate, b.least, b.most)
		case b.burst != 0 && b.rate == 0:
			return b.burstField, fmt.Sprintf("is %d without a limit: say that, too", b.burst)
		case b.burst != 0 && (b.burst < b.burstMin || b.burst > burstSeconds*b.rate):
			return b.burstField, fmt.Sprintf("is %d: %d to %d, which is a minute's worth, or 0 for the usual", b.burst, b.burstMin, burstSeconds*b.rate)
		}
	}
	return "", ""
}

// Bursts are the bursts of l with those that it leaves to core.
func (l *NetworkLimits) Bursts() (bytes, packets uint64) {
	bytes, packets = l.BurstBytes, l.BurstPackets
	if bytes == 0 {
		bytes = max(l.BytesPerSecond/4, DefaultBurstBytes)
	}
	if packets == 0 {
		packets = max(l.PacketsPerSecond/4, DefaultBurstPackets)
	}
	return bytes, packets
}
