package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// askTimeout bounds a call of core that its caller waits for.
const askTimeout = 30 * time.Second

func (g *Manager) ask(ctx context.Context, c hostcall.Call) (hostcall.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return g.core.Do(ctx, c)
}

// NMI sends an NMI at once, whatever operation is under way: a guest that does not
// obey its power button may be why. A request that is repeated after its success sends
// none. Where core's end leaves open whether one was sent, the caller is told.
func (g *Manager) NMI(ctx context.Context, o Order) error {
	m, err := g.Find(o.Name)
	if err != nil {
		return err
	}
	m.nmi.Lock()
	defer m.nmi.Unlock()
	if done, err := g.earlier(o.Ticket); done != "" || err != nil {
		return err
	}
	if err := m.askable(o.Etag, true); err != nil {
		return err
	}
	_, err = g.ask(ctx, hostcall.Call{Method: hostcall.GuestNMI, ID: m.uid})
	if errors.Is(err, link.ErrDown) {
		return refuse.New(connect.CodeUnavailable, refuse.CoreUnavailable,
			"core is restarting: the NMI was sent or not, look at the guest before you try again")
	}
	if err != nil {
		return refuse.Core(err, m.Name(), nil)
	}
	if o.Ticket.Key == "" {
		return nil
	}
	if err := g.store.Update(func(tx *store.Tx) error { return o.Ticket.put(tx, m.uid) }); err != nil {
		return refuse.Internal(fmt.Errorf("the NMI was sent, which could not be noted: %w", err))
	}
	return nil
}

// askable refuses what a guest that does not run, or is paused where it must not be,
// cannot answer.
func (m *Machine) askable(etag string, moving bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.gone:
		return refuse.NotFound(Kind, m.Name())
	case etag != "" && etag != m.proto().Etag:
		return refuse.Etag(Kind, m.Name())
	case m.seen.State == "":
		return refuse.Down()
	case !m.alive():
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is stopped: start it")
	case moving && m.seen.State == hostcall.Paused:
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is paused: resume it")
	}
	return nil
}

// Counters returns what a guest has done since it was started.
func (g *Manager) Counters(ctx context.Context, name string) (*ashlarv1.VirtualMachineCounters, error) {
	m, err := g.Find(name)
	if err != nil {
		return nil, err
	}
	msg, err := m.askFor(ctx, hostcall.GuestCounters, func(msg hostcall.Message) bool { return msg.Counters != nil })
	if err != nil {
		return nil, err
	}
	p := countersProto(m.Name(), msg.Counters)
	// They do not fit into one message of core's with all that there can be besides.
	if msg, err = m.askFor(ctx, hostcall.GuestHistograms, func(hostcall.Message) bool { return true }); err != nil {
		return nil, err
	}
	for kind, counts := range msg.Histograms {
		h := &ashlarv1.LatencyHistogram{}
		for _, n := range counts {
			h.Counts = append(h.Counts, signed(n))
		}
		p.Latencies[kind] = h
	}
	return p, nil
}

// askFor asks core for something of a guest that runs or is paused; there says whether
// it is in the answer.
func (m *Machine) askFor(ctx context.Context, method hostcall.Method, there func(hostcall.Message) bool) (hostcall.Message, error) {
	if err := m.askable("", false); err != nil {
		return hostcall.Message{}, err
	}
	msg, err := m.g.ask(ctx, hostcall.Call{Method: method, ID: m.uid})
	if err == nil && !there(msg) {
		err = &hostcall.Error{Code: hostcall.Internal, Message: "core answered without what it was asked for"}
	}
	if err != nil {
		return hostcall.Message{}, refuse.Core(err, m.Name(), nil)
	}
	return msg, nil
}

// countersProto turns counters by name into counters by processor.
func countersProto(name string, c *hostcall.Counters) *ashlarv1.VirtualMachineCounters {
	p := &ashlarv1.VirtualMachineCounters{
		Name: name, ReadTime: timestamppb.New(c.Read), Devices: map[string]int64{}, Latencies: map[string]*ashlarv1.LatencyHistogram{},
	}
	if !c.Started.IsZero() {
		p.StartTime = timestamppb.New(c.Started)
	}
	for counter, n := range c.Devices {
		p.Devices[counter] = signed(n)
	}
	for _, counter := range slices.Sorted(maps.Keys(c.VCPUs)) {
		for i, n := range c.VCPUs[counter] {
			if i == len(p.Cpus) {
				p.Cpus = append(p.Cpus, &ashlarv1.VirtualCpuCounters{Counters: map[string]int64{}})
			}
			p.Cpus[i].Counters[counter] = signed(n)
		}
	}
	return p
}

// signed is n, or the most that an int64 holds.
func signed(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
