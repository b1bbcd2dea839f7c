package network

import (
	driver "github.com/ashlar-hv/ashlar/drivers/network"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Counters of what limits have done to a NIC, besides packets that they dropped, which
// are among those that are lost.
const (
	rxThrottled = "rx_throttled"
	txThrottled = "tx_throttled"
	rxDropped   = "rx_dropped"
	txDropped   = "tx_dropped"
)

// SetLimits limits what passes a tap. It returns what the limits before these have
// counted, by the names of counters: TapCounters forgets that.
func (s *Set) SetLimits(tap string, l *hostcall.NICLimits) (counted map[string]uint64, err error) {
	if l == nil {
		l = &hostcall.NICLimits{}
	}
	if counted, err = limitCounters(tap); err != nil {
		return nil, err
	}
	if err := driver.SetLimits(tap, rate(l.Receive), rate(l.Transmit)); err != nil {
		return nil, err
	}
	now, err := limitCounters(tap)
	if err != nil {
		return nil, err
	}
	for name, n := range now { // what has not been forgotten
		counted[name] -= min(n, counted[name])
	}
	return counted, nil
}

func rate(l *hostcall.NetworkLimits) driver.Rate {
	if l == nil {
		return driver.Rate{}
	}
	bytes, packets := l.Bursts()
	return driver.Rate{Bytes: l.BytesPerSecond, BurstBytes: bytes, Packets: l.PacketsPerSecond, BurstPackets: packets}
}

// limitCounters are what the limits of a tap have counted, by the names and in the
// directions of its guest.
func limitCounters(tap string) (map[string]uint64, error) {
	toGuest, fromGuest, err := driver.Throttled(tap)
	if err != nil {
		return nil, err
	}
	return map[string]uint64{
		rxThrottled: toGuest.Waited + toGuest.Dropped, rxDropped: toGuest.Dropped,
		txThrottled: fromGuest.Waited + fromGuest.Dropped, txDropped: fromGuest.Dropped,
	}, nil
}

// SetLink connects a tap to its network, or disconnects it.
func (s *Set) SetLink(tap string, up bool) error { return driver.SetLink(tap, up) }
