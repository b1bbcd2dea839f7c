package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Bounds of the counters that core takes from a VMM, which a guest may have taken over.
const (
	maxCounters    = 512 // of devices
	maxVCPUCounter = 64  // names
	maxCounterName = 48  // bytes
	maxHistograms  = 64
)

// Counters returns what a guest has done (hostcall.GuestCounters).
func (m *Manager) Counters(ctx context.Context, id string) (hostcall.Counters, error) {
	r, err := m.find(id)
	if err != nil {
		return hostcall.Counters{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.CountersMethod, nil, nil)
	if err != nil {
		return hostcall.Counters{}, refusal(err)
	}
	if err := checkCounters(response.Counters); err != nil {
		return hostcall.Counters{}, err
	}
	out := hostcall.Counters{Started: r.rec.Started, Read: time.Now().UTC(),
		Devices: response.Counters.Devices, VCPUs: response.Counters.VCPUs}
	m.addTaps(r, &out)
	return out, nil
}

// Histograms returns how long requests of a guest took (hostcall.GuestHistograms).
func (m *Manager) Histograms(ctx context.Context, id string) (protocol.Histograms, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.HistogramsMethod, nil, nil)
	var refused *protocol.Error
	if errors.As(err, &refused) && refused.Code == protocol.InvalidArgument {
		return nil, nil // the VMM is older than they are
	}
	if err != nil {
		return nil, refusal(err)
	}
	if err := checkHistograms(response.Histograms); err != nil {
		return nil, err
	}
	return response.Histograms, nil
}

// checkHistograms is checkCounters for histograms.
func checkHistograms(h protocol.Histograms) error {
	if len(h) > maxHistograms {
		return senseless("%d histograms", len(h))
	}
	for name, counts := range h {
		if !counterName(name) || len(counts) > protocol.HistogramBuckets {
			return senseless("%.60q with %d counts", name, len(counts))
		}
	}
	return nil
}

// senseless refuses what a VMM tells.
func senseless(format string, args ...any) error {
	return &hostcall.Error{Code: hostcall.Internal,
		Message: clean("The guest's VMM tells counters that make no sense: " + fmt.Sprintf(format, args...) + ".")}
}

// checkCounters refuses what is too much, or is not named as counters are.
func checkCounters(c *protocol.Counters) error {
	switch {
	case c == nil:
		return senseless("none")
	case len(c.Devices) > maxCounters || len(c.VCPUs) > maxVCPUCounter:
		return senseless("%d of devices, %d of processors", len(c.Devices), len(c.VCPUs))
	}
	for name := range c.Devices {
		if !counterName(name) {
			return senseless("%.60q", name)
		}
	}
	for name, values := range c.VCPUs {
		if !counterName(name) || len(values) > maxVCPUs {
			return senseless("%.60q of %d processors", name, len(values))
		}
	}
	return nil
}

// counterName says whether s is a counter's name: lower-case letters, digits, `_` and `.`.
func counterName(s string) bool {
	return s != "" && len(s) <= maxCounterName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.") == ""
}

// addTaps puts in what the kernel counts at the guest's taps: packets that vhost moves
// never come by the VMM. What the VMM has counted of the same is the same packets.
func (m *Manager) addTaps(r *run, c *hostcall.Counters) {
	if c.Devices == nil {
		c.Devices = make(map[string]uint64)
	}
	m.mu.Lock()
	nics, counted := r.rec.NICs, r.rec.Counted
	m.mu.Unlock()
	for _, n := range nics {
		tap, err := m.c.Networks.TapCounters(r.rec.tap(n.Number))
		if err != nil {
			m.c.Log.Warn("counters of a tap cannot be read", "guest", r.rec.ID, "error", err)
			continue
		}
		for name, count := range tap {
			full := fmt.Sprintf("nic%d.%s", n.Number, name)
			if name == "errors" { // of the queues and of the tap: not the same ones
				count += c.Devices[full]
			}
			c.Devices[full] = count + counted[n.Number][name]
		}
	}
}
