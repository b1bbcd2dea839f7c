package control_test

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) limitNIC(r *ashlarv1.SetVirtualMachineNetworkLimitsRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.SetVirtualMachineNetworkLimits(ctxOf(l.t), req(r))
}

func (l *lab) setLink(r *ashlarv1.SetVirtualMachineNetworkLinkRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.SetVirtualMachineNetworkLink(ctxOf(l.t), req(r))
}

// nicInCore is what core was told last about the first NIC of the guest's.
func (l *lab) nicInCore(uid string) hostcall.NIC {
	l.t.Helper()
	spec, _ := l.core.Spec(uid)
	if len(spec.NICs) == 0 {
		l.t.Fatal("core knows of no NIC")
	}
	return spec.NICs[0]
}

// Limits and link hold at once, in the record, and at the next start.
func TestNetworkLimitsAndLink(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	slow := &ashlarv1.NetworkInterfaceLimits{Transmit: &ashlarv1.NetworkLimits{BytesPerSecond: 1 << 20, PacketsPerSecond: 1000, BurstPackets: 7}}
	told := &hostcall.NICLimits{Transmit: &hostcall.NetworkLimits{BytesPerSecond: 1 << 20, PacketsPerSecond: 1000, BurstPackets: 7}}
	limit := &ashlarv1.SetVirtualMachineNetworkLimitsRequest{Name: vm.Name, Limits: slow}
	link := &ashlarv1.SetVirtualMachineNetworkLinkRequest{Name: vm.Name, LinkDown: true}
	check := func(when string, limits *hostcall.NICLimits, down bool) {
		t.Helper()
		if got := l.nicInCore(vm.Uid); cmp.Diff(got.Limits, limits) != "" || got.LinkDown != down {
			t.Errorf("%s: core has %+v, link down %v; want %+v, %v", when, got.Limits, got.LinkDown, limits, down)
		}
		got := l.get(vm.Name).NetworkInterfaces[0]
		if proto.Equal(got.Limits, slow) != (limits != nil) || got.LinkDown != down {
			t.Errorf("%s: the record is %v", when, got)
		}
	}
	if op := l.done(l.limitNIC(limit)); op.Error != nil || op.Kind != "set-network-limits" {
		t.Fatalf("limits of a stopped machine = %v", op)
	}
	if op := l.done(l.setLink(link)); op.Error != nil || op.Kind != "set-network-link" {
		t.Fatalf("link of a stopped machine = %v", op)
	}
	if l.core.Calls(hostcall.GuestSetNICLimits)+l.core.Calls(hostcall.GuestSetNICLink) != 0 {
		t.Error("core was asked about a guest that does not run")
	}
	l.restartControl()
	l.mustStart(vm.Name)
	check("started", told, true)

	limit.Limits, link.LinkDown = nil, false
	if op := l.done(l.limitNIC(limit)); op.Error != nil {
		t.Fatal(op)
	}
	if op := l.done(l.setLink(link)); op.Error != nil {
		t.Fatal(op)
	}
	check("running", nil, false)

	l.mustPause(vm.Name)
	l.core.Cut(hostcall.GuestSetNICLimits) // core ends before it answers
	l.core.Cut(hostcall.GuestSetNICLink)
	limit.Limits, limit.RequestId = slow, "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e31"
	one := l.done(l.limitNIC(limit))
	if two := l.done(l.limitNIC(limit)); one.Error != nil || one.Name != two.Name {
		t.Errorf("the same request twice = %v, %v", one, two)
	}
	link.LinkDown = true
	if op := l.done(l.setLink(link)); op.Error != nil {
		t.Fatal(op)
	}
	check("paused", told, true)

	l.core.Refuse(hostcall.GuestSetNICLimits, &hostcall.Error{Code: hostcall.Unavailable, Message: "no room"})
	l.core.Refuse(hostcall.GuestSetNICLink, &hostcall.Error{Code: hostcall.Unavailable, Message: "the VMM does not answer"})
	limit.Limits, limit.RequestId, link.LinkDown = nil, "", false
	for _, op := range []*ashlarv1.Operation{l.done(l.limitNIC(limit)), l.done(l.setLink(link))} {
		if op.Error == nil {
			t.Errorf("what core refused = %v", op)
		}
	}
	check("refused", told, true)
}

func TestNetworkLimitsRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	limits := func(r *ashlarv1.NetworkLimits) *ashlarv1.NetworkInterfaceLimits {
		return &ashlarv1.NetworkInterfaceLimits{Receive: r}
	}
	for name, tt := range map[string]struct {
		r    *ashlarv1.SetVirtualMachineNetworkLimitsRequest
		want string
	}{
		"no such NIC":     {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{NetworkInterface: 9}, "network_interface"},
		"NIC -1":          {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{NetworkInterface: -1}, "network_interface"},
		"slow":            {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{Limits: limits(&ashlarv1.NetworkLimits{BytesPerSecond: 1})}, "limits.receive.bytes_per_second"},
		"negative":        {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{Limits: limits(&ashlarv1.NetworkLimits{PacketsPerSecond: -1})}, "limits.receive.packets_per_second"},
		"burst of what":   {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{Limits: limits(&ashlarv1.NetworkLimits{BurstBytes: 1 << 20})}, "limits.receive.burst_bytes"},
		"burst too small": {&ashlarv1.SetVirtualMachineNetworkLimitsRequest{Limits: limits(&ashlarv1.NetworkLimits{BytesPerSecond: 1 << 20, BurstBytes: 1500})}, "limits.receive.burst_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.r.Name = vm.Name
			_, err := l.limitNIC(tt.r)
			wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", tt.want)
		})
	}
	_, err := l.setLink(&ashlarv1.SetVirtualMachineNetworkLinkRequest{Name: vm.Name, NetworkInterface: 5})
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "network_interface")
	_, err = l.setLink(&ashlarv1.SetVirtualMachineNetworkLinkRequest{Name: vm.Name, Etag: "x"})
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
}
