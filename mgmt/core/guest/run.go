package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A run is one life of a guest: from the start of its VMM to its end.
type run struct {
	rec    record              // Slot and HotplugSlots never change; the rest is guarded by Manager.mu
	state  hostcall.GuestState // guarded by Manager.mu
	vcpus  int                 // as the VMM has told last; 0: not yet; guarded by Manager.mu
	client *client
	group  *cgroup.Group
	process
	boardNews
	health
	watched bool                 // watch waits for its end; set by who starts watch
	ran     bool                 // the guest came to run; guarded by Manager.mu
	noted   bool                 // its end is kept; guarded by Manager.mu
	over    bool                 // what belongs to it is cleared away; guarded by Manager.mu
	killed  atomic.Bool          // core has ended it
	reset   atomic.Bool          // and is to start again
	starved bool                 // the kernel has ended it for want of memory; set with end
	end     hostcall.GuestStatus // how the process ended; set before its end is told
	gone    chan struct{}        // closed when it has ended and is cleaned up
}

// statusOf describes a run. The caller holds mu.
func (m *Manager) statusOf(r *run) hostcall.GuestStatus {
	s := hostcall.GuestStatus{ID: r.rec.ID, State: r.state, PID: r.rec.PID,
		Addresses: append([]string(nil), r.rec.Leased...), Started: r.rec.Started,
		CID: r.rec.CID, Panicked: r.panicked, Before: r.before, VCPUs: r.vcpus, Devices: m.heldDevices(r.rec.ID),
		DisksFull: r.disksFull, DisksFailed: r.disksFailed, TapsGone: r.tapsGone}
	for _, n := range r.rec.NICs {
		s.NICs = append(s.NICs, n.Number)
	}
	return s
}

func (r *run) powerButton(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.call(ctx, protocol.PowerButton, nil, nil); err != nil {
		return refusal(err)
	}
	return nil
}

// finishBy lets the VMM flush and end by method (protocol.Stop, or
// protocol.ResetMethod), or ends it, and waits until it is gone.
func (m *Manager) finishBy(ctx context.Context, r *run, method protocol.Method) error {
	r.killed.Store(true)
	stop, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if _, _, err := r.client.call(stop, method, nil, nil); err == nil {
		select {
		case <-r.gone:
			return nil
		case <-stop.Done():
		}
	}
	if err := r.group.Kill(); err != nil {
		return err
	}
	select {
	case <-r.gone:
		return nil
	case <-time.After(killTimeout + m.returnTime(r.rec.ID)):
		return fmt.Errorf("kill guest %s: its VMM has not ended in time, or its devices are not given back", r.rec.ID)
	}
}

// finish is called once when the VMM has ended: it clears away what belonged to it.
func (m *Manager) finish(r *run) {
	r.client.close()
	m.mu.Lock()
	r.over = true
	rec := r.rec
	m.mu.Unlock()
	m.cleanUp(rec)
	m.giveBack(rec)
}

// noteEnd keeps how r ended. The caller holds m.mu.
func (m *Manager) noteEnd(r *run) {
	r.noted = true
	m.ended[r.rec.ID] = r.end
	if err := m.writeEnd(r.end); err != nil {
		m.c.Log.Warn("cannot keep end of guest", "guest", r.rec.ID, "error", err)
	}
}

// endOf says how the run ended.
func (m *Manager) endOf(r *run) hostcall.GuestStatus {
	end := hostcall.GuestStatus{ID: r.rec.ID, State: hostcall.Stopped, Started: r.rec.Started}
	result, err := readResult(m.runPath(r.rec.ID, resultName))
	switch {
	case err == nil:
		end.Reason, end.Message = string(result.Reason), result.Message
	case r.hung.Load():
		end.Reason, end.Message = hostcall.Lost, hungMessage
	case r.reset.Load():
		end.Reason, end.Message = string(protocol.Reset), "The VMM had to be killed for it."
	case r.killed.Load():
		end.Reason = string(protocol.Killed)
	default:
		end.Reason = hostcall.Lost
		end.Message = clean("The VMM ended without a word. " + r.how())
		if r.starved = r.group.Starved(); r.starved {
			end.Message = "The VMM was killed: the host had no memory left for it."
		}
	}
	return end
}

// retire makes the end of r known: to the table, to subscribers, to waiters. A
// guest that never came to run is as it was before.
func (m *Manager) retire(r *run) {
	m.mu.Lock()
	delete(m.running, r.rec.ID)
	end, before := m.ended[r.rec.ID]
	switch {
	case r.ran:
		if !r.noted {
			m.noteEnd(r)
		}
		end = r.end
	case !before:
		end = hostcall.GuestStatus{ID: r.rec.ID, State: hostcall.Stopped}
	}
	m.c.Notify(end)
	rec := r.rec
	m.mu.Unlock()
	m.giveBack(rec)
	close(r.gone)
	if r.watched {
		m.c.Log.Info("VMM has ended", "guest", r.rec.Name, "id", r.rec.ID, "reason", r.end.Reason, "message", r.end.Message)
	}
}

// fields maps the parts of protocol.Spec to those of hostcall.Guest.
var fields = strings.NewReplacer("boot.kernel", "guest.kernel", "boot.initramfs", "guest.initramfs",
	"boot.cmdline", "guest.cmdline", "memoryBytes", "guest.memoryBytes", "maxVcpus", "guest.maxVcpus", "vcpus", "guest.vcpus", "board.", "guest.board.", "backing.", "guest.backing.",
	"newDisk.", "disk.", "newNic.", "nic.", "name", "guest.name", "nics[", "guest.nics[", "vfio.", "guest.", "newVfio.device.", "devices.", "vsock.", "guest.vsock.", // Of nodes: what is within one keeps its name.
	"numa[", "guest.numa[", "].memoryBytes", "].memoryBytes", "].vcpus", "].vcpus")

// refusal makes a hostcall.Error of what a VMM says.
func refusal(err error) error {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return &hostcall.Error{Code: hostcall.Unavailable, Message: clean("The guest's VMM does not answer: " + err.Error() + ".")}
	}
	out := &hostcall.Error{Code: hostcall.Internal, Message: clean(e.Message)}
	switch e.Code {
	case protocol.InvalidArgument:
		out.Code = hostcall.InvalidArgument
	case protocol.FailedPrecondition:
		out.Code = hostcall.FailedPrecondition
	case protocol.Unavailable:
		out.Code = hostcall.Unavailable
	case protocol.ResourceExhausted:
		out.Code = hostcall.ResourceExhausted
	}
	if e.Field != "" {
		out.Field = clean(fields.Replace(e.Field))
	}
	return out
}
