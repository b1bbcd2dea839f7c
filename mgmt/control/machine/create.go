package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// createTimeout bounds the making of disks; without reflinks they are copied.
	createTimeout = 30 * time.Minute
	// hostTimeout bounds the question what the host has.
	hostTimeout = 30 * time.Second
)

// Create makes a machine and its disks (VirtualMachineService.CreateVirtualMachine).
func (g *Manager) Create(ctx context.Context, req *ashlarv1.CreateVirtualMachineRequest, t Ticket) (*ashlarv1.VirtualMachine, error) {
	for {
		if vm, err := g.madeBefore(ctx, t); vm != nil || err != nil {
			return vm, err
		}
		host, err := g.host(ctx)
		if err != nil {
			return nil, err
		}
		rec, err := g.validate(req, host)
		if err != nil {
			return nil, err
		}
		if err := g.checkDevices(ctx, rec); err != nil {
			return nil, err
		}
		m, twin, err := g.reserve(rec, t, req.ValidateOnly)
		switch {
		case twin != nil: // the same request, at the same time
			select {
			case <-twin.made:
				continue
			case <-ctx.Done():
				return nil, refuse.Core(ctx.Err(), "", nil)
			}
		case err != nil:
			// It may be the same request that took the name, a moment ago.
			if vm, terr := g.madeBefore(ctx, t); vm != nil || terr != nil {
				return vm, terr
			}
			return nil, err
		case m == nil: // validate_only
			rec.UID = ""
			return describe(rec), nil
		}
		// From here on the work is done whole, whether the client stays or not.
		err = g.make(context.WithoutCancel(ctx), m, t)
		g.mu.Lock()
		delete(g.creating, t.Key)
		g.mu.Unlock()
		close(m.made)
		if err != nil {
			return nil, err
		}
		return m.Proto(), nil
	}
}

func (g *Manager) host(ctx context.Context) (*hostcall.HostStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	msg, err := g.core.Do(ctx, hostcall.Call{Method: hostcall.Host})
	return msg.Host, refuse.Core(err, "host", nil)
}

// madeBefore returns what the same request has made, nil where it is new.
func (g *Manager) madeBefore(ctx context.Context, t Ticket) (*ashlarv1.VirtualMachine, error) {
	uid, err := g.earlier(t)
	if uid == "" || err != nil {
		return nil, err
	}
	g.mu.Lock()
	m := g.byUID[uid]
	g.mu.Unlock()
	if m == nil {
		return nil, refuse.New(connect.CodeNotFound, refuse.NoSuchResource, "what this request has made was deleted since: use a new request_id to make it again")
	}
	select {
	case <-m.made:
	case <-ctx.Done():
		return nil, refuse.Core(ctx.Err(), "", nil)
	}
	if !m.public() {
		return nil, refuse.Down() // half made: it is removed when core is back
	}
	return m.Proto(), nil
}

// reserve takes the name, or says why it cannot be had. m is nil where only that was
// asked; twin is a creation by the same request under way.
func (g *Manager) reserve(rec store.VM, t Ticket, only bool) (m, twin *Machine, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.Key != "" && g.creating[t.Key] != nil {
		return nil, g.creating[t.Key], nil
	}
	name := Prefix + rec.ID
	if g.byID[rec.ID] != nil {
		return nil, nil, refuse.Exists(Kind, name, ": choose another name, or delete it first")
	}
	if len(g.byUID) >= maxMachines {
		return nil, nil, refuse.New(connect.CodeResourceExhausted, refuse.LimitReached,
			fmt.Sprintf("there are %d virtual machines, the most there may be: delete some first", maxMachines))
	}
	if err := g.assignMACs(&rec); err != nil {
		return nil, nil, err
	}
	if only {
		return nil, nil, nil
	}
	m = g.newMachine(rec)
	m.making = true
	g.enter(m)
	if t.Key != "" {
		g.creating[t.Key] = m
	}
	g.launch(m)
	return m, nil, nil
}

// make brings a reserved machine into being: the record, the disks, the record again.
func (g *Manager) make(ctx context.Context, m *Machine, t Ticket) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	err := g.makeDisks(ctx, m, t)
	if err == nil {
		err = m.save(func(rec *store.VM) { rec.Phase = store.Ready })
	}
	if err == nil {
		// A list that core has made before would say that the disks are not there: it
		// has been looked at when this one comes.
		listed, cancel := context.WithTimeout(ctx, hostTimeout)
		_ = g.core.Sync(listed) // after a failure the next one tells
		cancel()
	}
	var he *hostcall.Error
	if errors.As(err, &he) || connect.CodeOf(err) == connect.CodeInvalidArgument {
		// Refused, nothing was made. After any other error the machine's goroutine
		// clears up when core is back.
		if ferr := m.forget(); ferr != nil {
			g.log.Error("refused virtual machine not forgotten", "vm", m.id, "error", ferr)
		}
	}
	m.mu.Lock()
	m.making = false
	if err == nil && (m.seen.State == "" || m.absent) {
		m.seen, m.absent = hostcall.GuestStatus{ID: m.uid, State: hostcall.Stopped}, false
	}
	m.touch()
	m.mu.Unlock()
	return refuse.Core(err, m.Name(), createField)
}

func (g *Manager) makeDisks(ctx context.Context, m *Machine, t Ticket) error {
	err := g.store.Update(func(tx *store.Tx) error {
		return errors.Join(store.VMs.Put(tx, m.rec), t.put(tx, m.uid))
	})
	if err != nil {
		return refuse.Internal(err) // and the machine's goroutine clears up
	}
	// Now that the machine stands among the users of its images: are they still there?
	call := hostcall.Call{Method: hostcall.GuestCreate, ID: m.uid}
	if _, err := m.imageUID("virtual_machine.boot.kernel", m.rec.Kernel); err != nil {
		return err
	}
	if m.rec.Initramfs != "" {
		if _, err := m.imageUID("virtual_machine.boot.initramfs", m.rec.Initramfs); err != nil {
			return err
		}
	}
	for i, d := range m.rec.Disks {
		disk := hostcall.Disk{Size: d.Size}
		if d.Image != "" {
			if disk.Image, err = m.imageUID(fmt.Sprintf("virtual_machine.disks[%d].image", i), d.Image); err != nil {
				return err
			}
		}
		call.Disks = append(call.Disks, disk)
	}
	_, err = g.core.Do(ctx, call)
	return err
}

// imageUID returns what core knows an image by.
func (m *Machine) imageUID(field, id string) (string, error) {
	ready, wrong := m.g.images.Use(image.Prefix + id)
	if wrong != "" {
		return "", refuse.Field(field, "%s", wrong)
	}
	return ready.UID, nil
}

func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var (
	diskField  = regexp.MustCompile(`^(?:guest\.)?disks\[(\d{1,2})\](?:\.(image|size|limits)(?:\.\w+)?)?$`)
	guestNIC   = regexp.MustCompile(`^(?:guest\.)?nics\[(\d)\](?:\.(network|mac|limits)(?:\.[\w.]+)?)?$`)
	guestField = map[string]string{
		"guest.kernel": "boot.kernel", "guest.initramfs": "boot.initramfs", "guest.cmdline": "boot.cmdline",
		"guest.maxVcpus": "max_cpus", "maxVcpus": "max_cpus",
		"guest.vcpus": "cpus", "guest.memoryBytes": "memory_bytes",
		"guest.cpu": "processor", "guest.cpu.model": "processor.model", "guest.cpu.haltPollNs": "processor.halt_poll",
		"cpu": "processor", "cpu.model": "processor.model", "cpu.hyperv": "processor.hyperv", "cpu.haltPollNs": "processor.halt_poll",
		"boot.kernel": "boot.kernel", "boot.initramfs": "boot.initramfs", "boot.cmdline": "boot.cmdline",
		"guest.backing.pages": "memory_backing.pages", "backing.pages": "memory_backing.pages",
		"vcpus": "cpus", "memoryBytes": "memory_bytes",
		"guest.vsock": "vsock", "guest.vsock.cid": "vsock", "guest.vsock.vhost": "vsock",
		"guest.board.watchdog": "watchdog.action", "guest.board.onPanic": "on_panic", "guest.board.serialNumber": "serial_number",
		"guest.pluggable.maxBytes": "max_memory_bytes", "pluggable.maxBytes": "max_memory_bytes",
		"guest.pluggable.bytes": "hotplug_memory_bytes", "pluggable.bytes": "hotplug_memory_bytes",
		"guest.balloonBytes": "balloon_bytes", "balloonBytes": "balloon_bytes",
	}
	leaf = map[string]string{"image": ".image", "size": ".size_bytes", "limits": ".limits", "network": ".network", "mac": ".mac_address"}
)

// startField turns a field of GuestStart (or of the VMM's Spec, which core may pass on)
// into one of VirtualMachine.
func startField(field string) string {
	if f, ok := guestField[field]; ok {
		return f
	}
	if f := numaField(field); f != "" {
		return f
	}
	if f := placedField(field); f != "" {
		return f
	}
	if f := serialField(field); f != "" {
		return f
	}
	if strings.HasPrefix(field, "guest.devices") {
		return vfField(strings.TrimSuffix(strings.TrimPrefix(field, "guest."), ".name"))
	}
	if p := diskField.FindStringSubmatch(field); p != nil {
		return "disks[" + p[1] + "]" + leaf[p[2]]
	}
	if p := guestNIC.FindStringSubmatch(field); p != nil {
		return "network_interfaces[" + p[1] + "]" + leaf[p[2]]
	}
	return ""
}

// createField turns a field of GuestCreate into one of CreateVirtualMachineRequest.
func createField(field string) string {
	if f := startField(field); f != "" {
		return "virtual_machine." + f
	}
	return ""
}
