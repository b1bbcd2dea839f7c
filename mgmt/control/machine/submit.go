package machine

import (
	"fmt"
	"regexp"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Kinds of operations.
const (
	kindStart  = "start"
	kindStop   = "stop"
	kindPause  = "pause"
	kindResume = "resume"
	kindReset  = "reset"
	kindDelete = "delete"

	kindSetDiskLimits = "set-disk-limits"
	kindResizeDisk    = "resize-disk"
	kindSetNICLimits  = "set-network-limits"
	kindSetNICLink    = "set-network-link"
	kindSetCPUs       = "set-cpus"

	kindAttachDisk = "attach-disk"
	kindDetachDisk = "detach-disk"
	kindAttachNIC  = "attach-nic"
	kindDetachNIC  = "detach-nic"

	kindAttachDevice = "attach-device"
	kindDetachDevice = "detach-device"
)

// lasting are the kinds that are done after a restart of the host, too.
var lasting = []string{kindStop, kindDelete, kindSetDiskLimits, kindResizeDisk, kindSetNICLimits, kindSetNICLink, kindSetCPUs, kindAttachDisk, kindDetachDisk, kindAttachNIC, kindDetachNIC, kindAttachDevice, kindDetachDevice}

// maxQueue bounds the operations that wait for one machine.
const maxQueue = 8

// requestForm is the text form of a UUID (RFC 9562).
var requestForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// A Ticket makes a request idempotent: Key is the caller's name, the method and its
// request_id, "" where it brought none; Digest is of all else that it said.
type Ticket struct {
	Key    string
	Digest string
}

// NewTicket checks a request_id.
func NewTicket(caller, method, requestID, digest string) (Ticket, error) {
	if requestID == "" {
		return Ticket{}, nil
	}
	if !requestForm.MatchString(requestID) {
		return Ticket{}, refuse.Field("request_id", "is %q: write a UUID, or leave it empty", requestID)
	}
	return Ticket{Key: caller + "\x00" + method + "\x00" + requestID, Digest: digest}, nil
}

// earlier returns what the same request has made before, "" where it is new.
func (g *Manager) earlier(t Ticket) (result string, err error) {
	if t.Key == "" {
		return "", nil
	}
	var r store.Request
	err = g.store.View(func(tx *store.Tx) (err error) {
		r, _, err = store.Requests.Get(tx, t.Key)
		return err
	})
	if err != nil {
		return "", refuse.Internal(err)
	}
	if r.Result != "" && r.Digest != t.Digest {
		return "", refuse.Field("request_id", "was used for another request: use a new one for each")
	}
	return r.Result, nil
}

func (t Ticket) put(tx *store.Tx, result string) error {
	if t.Key == "" {
		return nil
	}
	return store.Requests.Put(tx, store.Request{Key: t.Key, Digest: t.Digest, Result: result, Time: time.Now()})
}

// An Order asks for an operation.
type Order struct {
	Name   string
	Etag   string
	Force  bool
	Grace  time.Duration
	Disk   int                  // of kinds that change a disk
	Limits *protocol.DiskLimits // of set-disk-limits
	Size   int64                // of resize-disk, in bytes
	CPUs   int32                // of set-cpus
	NIC    int                  // of kinds that change a network interface
	// NICLimits is of set-network-limits, LinkDown of set-network-link.
	NICLimits *hostcall.NICLimits
	LinkDown  bool
	// NewDisk, NewNIC and NewDevice are of the kinds that attach one, Device of those that detach it.
	NewDisk   *store.Disk
	NewNIC    *store.NIC
	NewDevice *store.HostDevice
	Device    string
	Ticket    Ticket
}

// Stop orders a stop.
func (g *Manager) Stop(o Order) (*operation.Op, error) { return g.submit(kindStop, o) }

// Pause orders a pause.
func (g *Manager) Pause(o Order) (*operation.Op, error) { return g.submit(kindPause, o) }

// Resume orders the end of a pause.
func (g *Manager) Resume(o Order) (*operation.Op, error) { return g.submit(kindResume, o) }

// Reset orders a reset.
func (g *Manager) Reset(o Order) (*operation.Op, error) { return g.submit(kindReset, o) }

// Delete orders a deletion.
func (g *Manager) Delete(o Order) (*operation.Op, error) { return g.submit(kindDelete, o) }

// submit accepts an order or refuses it: the operation is in the store when it returns.
func (g *Manager) submit(kind string, o Order) (*operation.Op, error) {
	// A request whose operation is not there may be one that is being accepted just now.
	if op, err := g.repeated(o.Ticket); op != nil || err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return op, err
	}
	m, err := g.Find(o.Name)
	if err != nil {
		return nil, err
	}
	m.deciding.Lock()
	defer m.deciding.Unlock()
	// Again, now that nobody else can submit for this machine.
	if op, err := g.repeated(o.Ticket); op != nil || err != nil {
		return op, err
	}
	g.mu.Lock()
	m.mu.Lock()
	err = m.acceptable(kind, o)
	if err == nil {
		err = m.name(&o)
	}
	m.mu.Unlock()
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	rec := store.Operation{Kind: kind, Target: m.Name(), TargetUID: m.uid, Force: o.Force, Grace: o.Grace, Disk: o.Disk, Limits: o.Limits, Size: o.Size,
		NIC: o.NIC, NICLimits: o.NICLimits, LinkDown: o.LinkDown, CPUs: o.CPUs, NewDisk: o.NewDisk, NewNIC: o.NewNIC, NewDevice: o.NewDevice, Device: o.Device}
	op, err := g.ops.Begin(rec, o.Ticket.put)
	if err != nil {
		m.unname(rec)
		return nil, refuse.Internal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.Force && m.current != nil && m.current.Record().Kind == kindStop {
		m.hurry = true
	}
	m.queue = append(m.queue, op)
	m.touch()
	return op, nil
}

// repeated returns the operation that the same request has begun before.
func (g *Manager) repeated(t Ticket) (*operation.Op, error) {
	id, err := g.earlier(t)
	if id == "" || err != nil {
		return nil, err
	}
	return g.ops.Get(operation.Prefix + id)
}

// acceptable refuses what makes no sense in the state that the machine is in, or will be
// in after what is queued. mu is held.
func (m *Machine) acceptable(kind string, o Order) error {
	will, verb := m.stands(), "is"
	for _, op := range append([]*operation.Op{m.current}, m.queue...) {
		if op == nil {
			continue
		}
		rec := op.Record()
		if rec.Kind == kindDelete {
			return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is being deleted by "+operation.Prefix+rec.ID)
		}
		if after, ok := outcomes[rec.Kind]; ok {
			will, verb = after.stand, after.verb+" by "+operation.Prefix+rec.ID+" and will be"
		}
	}
	wrong := func(hint string) error {
		return refuse.Precondition(refuse.WrongState, m.Name(), fmt.Sprintf("%s %s %s: %s", m.Name(), verb, will, hint))
	}
	stopping := m.current != nil && m.current.Record().Kind == kindStop
	switch {
	case m.gone:
		return refuse.NotFound(Kind, m.Name())
	case o.Etag != "" && o.Etag != m.proto().Etag:
		return refuse.Etag(Kind, m.Name())
	case len(m.queue) >= maxQueue:
		return refuse.New(connect.CodeResourceExhausted, refuse.LimitReached,
			fmt.Sprintf("%d operations wait for %s: wait for some of them, or cancel them", maxQueue, m.Name()))
	case m.rec.Phase == store.Deleting && kind != kindDelete:
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is being deleted")
	case kind == kindStop && (will != stopped || m.wanted() || o.Force && stopping):
		return nil
	case kind == kindDelete && o.Force:
		return nil
	case kind == kindSetDiskLimits:
		return m.hasDisk(o.Disk)
	case kind == kindSetNICLimits, kind == kindSetNICLink:
		return m.hasNIC(o.NIC)
	case kind == kindResizeDisk:
		return m.canGrow(o.Disk, o.Size)
	case kind == kindSetCPUs && m.canHave(o.CPUs) != nil:
		return m.canHave(o.CPUs)
	case kind == kindAttachDisk || kind == kindAttachNIC || kind == kindAttachDevice:
		return m.canAttach(kind, o)
	case kind == kindDetachDisk || kind == kindDetachNIC || kind == kindDetachDevice:
		return m.canDetach(o, will)
	case m.seen.State == "" && will == stopped && (kind == kindPause || kind == kindResume || kind == kindReset):
		return refuse.Down() // it has not told yet what runs
	}
	if hint := hints[kind][will]; hint != "" {
		return wrong(hint)
	}
	return nil
}

// A stand is where a machine is, or will be: what decides which operations make sense.
type stand string

const (
	stopped stand = "stopped"
	running stand = "running"
	paused  stand = "paused"
)

// stands is called with mu held.
func (m *Machine) stands() stand {
	switch {
	case m.seen.State == hostcall.Paused:
		return paused
	case m.alive():
		return running
	}
	return stopped
}

// outcomes are where operations lead, and what to call a machine meanwhile.
var outcomes = map[string]struct {
	stand stand
	verb  string
}{
	kindStart:  {running, "is being started"},
	kindStop:   {stopped, "is being stopped"},
	kindPause:  {paused, "is being paused"},
	kindResume: {running, "is being resumed"},
	kindReset:  {running, "is being reset"},
}

// hints say what to do where an operation makes no sense.
var hints = map[string]map[stand]string{
	kindStart:  {running: "nothing to start", paused: "resume it"},
	kindStop:   {stopped: "nothing to stop"},
	kindPause:  {stopped: "nothing to pause", paused: "nothing to pause"},
	kindResume: {stopped: "start it", running: "nothing to resume"},
	kindReset:  {stopped: "start it"},
	kindDelete: {running: "stop it first, or delete it with force", paused: "stop it first, or delete it with force"},

	kindSetCPUs: {paused: "resume it"},
}

// Cancel asks an operation to end early. One that has not begun ends at once.
func (g *Manager) Cancel(op *operation.Op) {
	op.Cancel()
	g.mu.Lock()
	m := g.byUID[op.Record().TargetUID]
	g.mu.Unlock()
	if m == nil {
		return
	}
	m.mu.Lock()
	queued := false
	for i, q := range m.queue {
		if q == op {
			m.queue = append(m.queue[:i:i], m.queue[i+1:]...)
			queued = true
			break
		}
	}
	if queued {
		m.touch()
	}
	m.mu.Unlock()
	if queued {
		m.unname(op.Record())
		op.Finish(operation.ErrCancelled)
	}
}
