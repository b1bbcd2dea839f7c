package hosttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// CreateVirtualMachine makes a guest.
func (h *Host) CreateVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.CreateVirtualMachineRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	vm := proto.CloneOf(req.Msg.GetVirtualMachine())
	vm.Name = "virtualMachines/" + req.Msg.GetVirtualMachineId()
	if h.seen[req.Msg.GetRequestId()] == vm.Name {
		return reply(h.vms[vm.Name].vm), nil
	}
	if err := h.valid(vm); err != nil {
		return nil, err
	}
	if h.vms[vm.Name] != nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("%s exists already", vm.Name))
	}
	number(vm)
	vm.Uid, vm.CreateTime, vm.Etag = fmt.Sprintf("%032x", len(h.vms)+1), timestamppb.New(Time), "1"
	vm.State, vm.StopReason = ashlarv1.VirtualMachine_STATE_STOPPED, ashlarv1.VirtualMachine_STOP_REASON_NOT_STARTED
	if req.Msg.GetValidateOnly() {
		return connect.NewResponse(vm), nil
	}
	h.vms[vm.Name] = &Guest{vm: vm}
	h.seen[req.Msg.GetRequestId()] = vm.Name
	h.touch()
	return reply(vm), nil
}

// valid checks some fields as the real host does.
func (h *Host) valid(vm *ashlarv1.VirtualMachine) error {
	switch {
	case vm.GetMemoryBytes()%(2<<20) != 0:
		return violation("virtual_machine.memory_bytes", fmt.Sprintf("is %d: a multiple of 2097152 (2 MiB)", vm.GetMemoryBytes()))
	case h.images[vm.GetBoot().GetKernel()] == nil:
		return violation("virtual_machine.boot.kernel", vm.GetBoot().GetKernel()+" does not exist: upload it first")
	}
	for i, d := range vm.GetDisks() {
		if d.GetImage() != "" && h.images[d.GetImage()] == nil {
			return violation(fmt.Sprintf("virtual_machine.disks[%d].image", i), d.GetImage()+" does not exist: upload it first")
		}
	}
	return nil
}

// guest finds one; h.mu is held.
func (h *Host) guest(name string) (*Guest, error) {
	if g := h.vms[name]; g != nil {
		return g, nil
	}
	return nil, notFound(name)
}

// GetVirtualMachine returns one.
func (h *Host) GetVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.GetVirtualMachineRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	out := reply(g.vm)
	observePlacement(out.Msg)
	return out, nil
}

// ListVirtualMachines lists them, two at a time.
func (h *Host) ListVirtualMachines(_ context.Context, req *connect.Request[ashlarv1.ListVirtualMachinesRequest]) (*connect.Response[ashlarv1.ListVirtualMachinesResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, next := page(slices.Sorted(maps.Keys(h.vms)), req.Msg.GetPageToken())
	res := &ashlarv1.ListVirtualMachinesResponse{NextPageToken: next}
	for _, n := range names {
		res.VirtualMachines = append(res.VirtualMachines, proto.CloneOf(h.vms[n].vm))
	}
	return connect.NewResponse(res), nil
}

// operate makes an operation that is done at the first WaitOperation, when act
// is called.
func (h *Host) operate(kind, target, requestID string) (*connect.Response[ashlarv1.Operation], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.guest(target); err != nil {
		return nil, err
	}
	if name, ok := h.seen[requestID]; ok {
		return reply(h.ops[name]), nil
	}
	op := &ashlarv1.Operation{
		Name: fmt.Sprintf("operations/%d", len(h.ops)+1), Kind: kind, Target: target,
		Message: "under way", CreateTime: timestamppb.New(Time),
	}
	h.ops[op.Name], h.seen[requestID] = op, op.Name
	h.order = append(h.order, op.Name)
	h.touch()
	return reply(op), nil
}

// StartVirtualMachine starts a guest.
func (h *Host) StartVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.StartVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.operate("start", req.Msg.GetName(), req.Msg.GetRequestId())
}

// StopVirtualMachine stops a guest.
func (h *Host) StopVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.StopVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if g := req.Msg.GetGracePeriod(); g != nil && g.GetSeconds() > 3600 {
		return nil, violation("grace_period", "is more than 1 hour")
	}
	return h.operate("stop", req.Msg.GetName(), req.Msg.GetRequestId())
}

// PauseVirtualMachine pauses a guest.
func (h *Host) PauseVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.PauseVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING); err != nil {
		return nil, err
	}
	return h.operate("pause", req.Msg.GetName(), req.Msg.GetRequestId())
}

// ResumeVirtualMachine lets a paused guest go on.
func (h *Host) ResumeVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.ResumeVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_PAUSED); err != nil {
		return nil, err
	}
	return h.operate("resume", req.Msg.GetName(), req.Msg.GetRequestId())
}

// ResetVirtualMachine resets a guest.
func (h *Host) ResetVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.ResetVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING, ashlarv1.VirtualMachine_STATE_PAUSED); err != nil {
		return nil, err
	}
	return h.operate("reset", req.Msg.GetName(), req.Msg.GetRequestId())
}

// SetVirtualMachineDiskLimits changes a disk at once.
func (h *Host) SetVirtualMachineDiskLimits(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineDiskLimitsRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if err := h.changeDisk(req.Msg.GetName(), req.Msg.GetDisk(), func(d *ashlarv1.Disk) { d.Limits = req.Msg.GetLimits() }); err != nil {
		return nil, err
	}
	return h.operate("set-disk-limits", req.Msg.GetName(), req.Msg.GetRequestId())
}

// ResizeVirtualMachineDisk makes a disk larger at once.
func (h *Host) ResizeVirtualMachineDisk(_ context.Context, req *connect.Request[ashlarv1.ResizeVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	var has int64
	err := h.changeDisk(req.Msg.GetName(), req.Msg.GetDisk(), func(d *ashlarv1.Disk) {
		has = d.GetSizeBytes()
		d.SizeBytes = max(has, req.Msg.GetSizeBytes())
	})
	if err == nil && req.Msg.GetSizeBytes() < has {
		err = violation("size_bytes", fmt.Sprintf("is %d: the disk has %d, and disks do not get smaller", req.Msg.GetSizeBytes(), has))
	}
	if err != nil {
		return nil, err
	}
	return h.operate("resize-disk", req.Msg.GetName(), req.Msg.GetRequestId())
}

// changeDisk changes a disk of a guest.
func (h *Host) changeDisk(name string, disk int32, change func(*ashlarv1.Disk)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(g.vm.GetDisks(), func(d *ashlarv1.Disk) bool { return d.GetNumber() == disk })
	if i < 0 {
		return noDisk(g.vm, disk)
	}
	change(g.vm.GetDisks()[i])
	return nil
}

// SetVirtualMachineNetworkLimits changes a network interface at once.
func (h *Host) SetVirtualMachineNetworkLimits(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineNetworkLimitsRequest]) (*connect.Response[ashlarv1.Operation], error) {
	err := h.changeNIC(req.Msg.GetName(), req.Msg.GetNetworkInterface(), func(n *ashlarv1.NetworkInterface) { n.Limits = req.Msg.GetLimits() })
	if err != nil {
		return nil, err
	}
	if n := req.Msg.GetLimits().GetTransmit().GetBytesPerSecond(); n > 0 && n < 64<<10 {
		return nil, violation("limits.transmit.bytes_per_second", fmt.Sprintf("is %d: too little", n))
	}
	return h.operate("set-network-limits", req.Msg.GetName(), req.Msg.GetRequestId())
}

// SetVirtualMachineNetworkLink changes a network interface at once.
func (h *Host) SetVirtualMachineNetworkLink(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineNetworkLinkRequest]) (*connect.Response[ashlarv1.Operation], error) {
	err := h.changeNIC(req.Msg.GetName(), req.Msg.GetNetworkInterface(), func(n *ashlarv1.NetworkInterface) { n.LinkDown = req.Msg.GetLinkDown() })
	if err != nil {
		return nil, err
	}
	return h.operate("set-network-link", req.Msg.GetName(), req.Msg.GetRequestId())
}

// changeNIC changes a network interface of a guest.
func (h *Host) changeNIC(name string, nic int32, change func(*ashlarv1.NetworkInterface)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(name)
	if err != nil {
		return err
	}
	if n := len(g.vm.GetNetworkInterfaces()); int(nic) >= n {
		return violation("network_interface", fmt.Sprintf("is %d: %s has %d network interfaces, counted from 0 on", nic, name, n))
	}
	change(g.vm.GetNetworkInterfaces()[nic])
	return nil
}

// SendVirtualMachineNmi makes a guest print that it got an NMI.
func (h *Host) SendVirtualMachineNmi(_ context.Context, req *connect.Request[ashlarv1.SendVirtualMachineNmiRequest]) (*connect.Response[ashlarv1.SendVirtualMachineNmiResponse], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[req.Msg.GetRequestId()] == "" {
		h.seen[req.Msg.GetRequestId()] = req.Msg.GetName()
		g := h.vms[req.Msg.GetName()]
		g.output = append(g.output, "NMI received\n"...)
		h.touch()
	}
	return connect.NewResponse(&ashlarv1.SendVirtualMachineNmiResponse{}), nil
}

// GetVirtualMachineCounters returns some counters.
func (h *Host) GetVirtualMachineCounters(_ context.Context, req *connect.Request[ashlarv1.GetVirtualMachineCountersRequest]) (*connect.Response[ashlarv1.VirtualMachineCounters], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING, ashlarv1.VirtualMachine_STATE_PAUSED); err != nil {
		return nil, err
	}
	c := &ashlarv1.VirtualMachineCounters{
		Name: req.Msg.GetName(), StartTime: timestamppb.New(Time), ReadTime: timestamppb.New(Time.Add(90 * time.Second)),
		Devices:   map[string]int64{"disk0.reads": 7, "disk0.read_bytes": 28672, "nic0.rx_packets": 3, "disk10.reads": 1},
		Latencies: map[string]*ashlarv1.LatencyHistogram{"disk0.read": {Counts: []int64{0, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 1}}, "disk0.write": {}},
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.vms[req.Msg.GetName()].vm.GetCpus() {
		c.Cpus = append(c.Cpus, &ashlarv1.VirtualCpuCounters{Counters: map[string]int64{"exits": int64(1000 + i), "user_io_exits": int64(5 * i)}})
	}
	return connect.NewResponse(c), nil
}

// SetVirtualMachineBalloon notes the size, which a guest that runs gives back at once.
func (h *Host) SetVirtualMachineBalloon(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineBalloonRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	if n := req.Msg.GetBalloonBytes(); n < 0 || n > g.vm.GetMemoryBytes()-32<<20 {
		return nil, violation("balloon_bytes", "is too much")
	}
	g.vm.BalloonBytes = req.Msg.GetBalloonBytes()
	h.touch()
	return reply(g.vm), nil
}

// GetVirtualMachineBalloon returns what was asked for as given.
func (h *Host) GetVirtualMachineBalloon(_ context.Context, req *connect.Request[ashlarv1.GetVirtualMachineBalloonRequest]) (*connect.Response[ashlarv1.VirtualMachineBalloon], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING, ashlarv1.VirtualMachine_STATE_PAUSED); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.vms[req.Msg.GetName()].vm.GetBalloonBytes()
	return connect.NewResponse(&ashlarv1.VirtualMachineBalloon{
		Name: req.Msg.GetName(), TargetBytes: n, ActualBytes: n,
		Statistics: map[string]int64{"free_bytes": 48 << 20, "major_faults": 3}, StatisticsTime: timestamppb.New(Time),
	}), nil
}

// SetVirtualMachineMemory notes the size, which a guest that runs has at once.
func (h *Host) SetVirtualMachineMemory(_ context.Context, req *connect.Request[ashlarv1.SetVirtualMachineMemoryRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	n := req.Msg.GetMemoryBytes() - g.vm.GetMemoryBytes()
	if n < 0 || req.Msg.GetMemoryBytes() > g.vm.GetMaxMemoryBytes() {
		return nil, violation("memory_bytes", "is too much or too little")
	}
	g.vm.HotplugMemoryBytes = n
	h.touch()
	return reply(g.vm), nil
}

// GetVirtualMachineMemory returns what was asked for as plugged in.
func (h *Host) GetVirtualMachineMemory(_ context.Context, req *connect.Request[ashlarv1.GetVirtualMachineMemoryRequest]) (*connect.Response[ashlarv1.VirtualMachineMemory], error) {
	if err := h.in(req.Msg.GetName(), ashlarv1.VirtualMachine_STATE_RUNNING, ashlarv1.VirtualMachine_STATE_PAUSED); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	vm := h.vms[req.Msg.GetName()].vm
	n := vm.GetMemoryBytes() + vm.GetHotplugMemoryBytes()
	return connect.NewResponse(&ashlarv1.VirtualMachineMemory{Name: vm.GetName(), TargetBytes: n, ActualBytes: n, MaxBytes: vm.GetMaxMemoryBytes()}), nil
}

// in refuses where the guest is in none of these states.
func (h *Host) in(name string, states ...ashlarv1.VirtualMachine_State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, err := h.guest(name)
	if err != nil {
		return err
	}
	if s := g.vm.GetState(); !slices.Contains(states, s) {
		word := strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is %s: nothing to do", name, word))
	}
	return nil
}

// DeleteVirtualMachine removes a guest.
func (h *Host) DeleteVirtualMachine(_ context.Context, req *connect.Request[ashlarv1.DeleteVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	h.mu.Lock()
	g := h.vms[req.Msg.GetName()]
	running := g != nil && g.vm.GetState() == ashlarv1.VirtualMachine_STATE_RUNNING
	h.mu.Unlock()
	if running && !req.Msg.GetForce() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s runs: stop it first, or set force", req.Msg.GetName()))
	}
	return h.operate("delete", req.Msg.GetName(), req.Msg.GetRequestId())
}

// finish does what an operation is for; h.mu is held.
func (h *Host) finish(op *ashlarv1.Operation) {
	g := h.vms[op.GetTarget()]
	op.Done, op.ProgressPercent, op.EndTime, op.Message = true, 100, timestamppb.New(Time), ""
	switch {
	case g == nil:
	case strings.HasSuffix(op.GetTarget(), "/broken"):
		op.Error = &ashlarv1.OperationError{Code: "FAILED_PRECONDITION", Message: "the kernel is no bzImage: upload another one"}
	case op.GetKind() == "start":
		g.vm.State, g.vm.StartTime, g.vm.DesiredRunning, g.vm.StopReason = ashlarv1.VirtualMachine_STATE_RUNNING, timestamppb.New(Time), true, 0
		for i, n := range g.vm.GetNetworkInterfaces() {
			n.IpAddress = fmt.Sprintf("10.88.0.%d", i+2)
		}
	case op.GetKind() == "pause":
		g.vm.State = ashlarv1.VirtualMachine_STATE_PAUSED
	case op.GetKind() == "resume", op.GetKind() == "reset":
		g.vm.State = ashlarv1.VirtualMachine_STATE_RUNNING
	case op.GetKind() == "stop":
		h.end(g, ashlarv1.VirtualMachine_STOP_REASON_KILLED, "")
	case op.GetKind() == "delete":
		h.end(g, ashlarv1.VirtualMachine_STOP_REASON_KILLED, "")
		delete(h.vms, op.GetTarget())
	}
	h.touch()
}

// end stops a guest; h.mu is held.
func (h *Host) end(g *Guest, reason ashlarv1.VirtualMachine_StopReason, text string) {
	g.vm.State, g.vm.StopReason, g.vm.StopMessage, g.vm.DesiredRunning, g.vm.StartTime = ashlarv1.VirtualMachine_STATE_STOPPED, reason, text, false, nil
	h.touch()
}

// End makes a guest stop for a reason.
func (h *Host) End(id string, reason ashlarv1.VirtualMachine_StopReason, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.vms["virtualMachines/"+id]; g != nil {
		h.end(g, reason, text)
	}
}

// Print makes a guest print.
func (h *Host) Print(id, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.vms["virtualMachines/"+id]; g != nil {
		g.output = append(g.output, text...)
		h.touch()
	}
}

// Typed is what was typed at a guest's console.
func (h *Host) Typed(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.vms["virtualMachines/"+id]; g != nil {
		return string(g.input)
	}
	return ""
}

// Console shows what the guest prints until it ends.
func (h *Host) Console(ctx context.Context, st *connect.BidiStream[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]) error {
	first, err := st.Receive()
	if err != nil {
		return err
	}
	h.mu.Lock()
	g, err := h.guest(first.GetName())
	if err != nil {
		h.mu.Unlock()
		return err
	}
	at := 0
	if first.GetNoReplay() {
		at = len(g.output)
	}
	h.mu.Unlock()
	go func() { // ends with the stream
		for {
			m, err := st.Receive()
			if err != nil {
				return
			}
			h.mu.Lock()
			g.input = append(g.input, m.GetInput()...)
			h.mu.Unlock()
		}
	}()
	for {
		h.mu.Lock()
		out, vm, changed := slices.Clone(g.output[at:]), proto.CloneOf(g.vm), h.changed
		h.mu.Unlock()
		at += len(out)
		res := &ashlarv1.ConsoleResponse{Output: out}
		ended := vm.GetState() == ashlarv1.VirtualMachine_STATE_STOPPED
		if ended {
			res.Ended = vm
		}
		if len(out) > 0 || ended {
			if err := st.Send(res); err != nil || ended {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// ReadLog returns what the guest has printed.
func (h *Host) ReadLog(_ context.Context, req *connect.Request[ashlarv1.ReadLogRequest], st *connect.ServerStream[ashlarv1.ReadLogResponse]) error {
	h.mu.Lock()
	g, err := h.guest(req.Msg.GetName())
	var out []byte
	if err == nil {
		out = slices.Clone(g.output)
	}
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return st.Send(&ashlarv1.ReadLogResponse{Data: out})
}

// GetOperation returns one.
func (h *Host) GetOperation(_ context.Context, req *connect.Request[ashlarv1.GetOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.operation(req.Msg.GetName(), false)
}

// WaitOperation ends it.
func (h *Host) WaitOperation(_ context.Context, req *connect.Request[ashlarv1.WaitOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.operation(req.Msg.GetName(), true)
}

// CancelOperation changes nothing.
func (h *Host) CancelOperation(_ context.Context, req *connect.Request[ashlarv1.CancelOperationRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.operation(req.Msg.GetName(), false)
}

func (h *Host) operation(name string, finish bool) (*connect.Response[ashlarv1.Operation], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := h.ops[name]
	if op == nil {
		return nil, notFound(name)
	}
	if finish && !op.GetDone() {
		h.finish(op)
	}
	return reply(op), nil
}

// ListOperations lists all, newest first.
func (h *Host) ListOperations(context.Context, *connect.Request[ashlarv1.ListOperationsRequest]) (*connect.Response[ashlarv1.ListOperationsResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	res := &ashlarv1.ListOperationsResponse{}
	for _, n := range slices.Backward(h.order) {
		res.Operations = append(res.Operations, proto.CloneOf(h.ops[n]))
	}
	return connect.NewResponse(res), nil
}

// Watch sends the virtual machines, and sends them again when anything changes.
func (h *Host) Watch(ctx context.Context, _ *connect.Request[ashlarv1.WatchRequest], st *connect.ServerStream[ashlarv1.WatchResponse]) error {
	for synced := false; ; synced = true {
		h.mu.Lock()
		var all []*ashlarv1.WatchResponse
		for _, n := range slices.Sorted(maps.Keys(h.vms)) {
			all = append(all, &ashlarv1.WatchResponse{
				Kind: ashlarv1.WatchResponse_KIND_PUT, Time: timestamppb.New(Time), ResumeToken: "t",
				Resource: &ashlarv1.WatchResponse_VirtualMachine{VirtualMachine: proto.CloneOf(h.vms[n].vm)},
			})
		}
		changed := h.changed
		h.mu.Unlock()
		if !synced {
			all = append(all, &ashlarv1.WatchResponse{Synced: true, ResumeToken: "t"})
		}
		for _, m := range all {
			if err := st.Send(m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
