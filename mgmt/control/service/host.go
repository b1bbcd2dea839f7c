package service

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

type hostService struct{ *API }

// GetHost implements HostService.
func (s hostService) GetHost(ctx context.Context, _ *connect.Request[ashlarv1.GetHostRequest]) (*connect.Response[ashlarv1.Host], error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	msg, err := s.Link.Do(ctx, hostcall.Call{Method: hostcall.Host})
	if err != nil {
		return nil, refuse.Core(err, "host", nil)
	}
	if msg.Host == nil {
		return nil, refuse.Internal(errors.New("core answered without saying anything about the host"))
	}
	h := msg.Host
	if s.Closed != nil {
		h.Problems = append(h.Problems, storeProblem(s.Closed))
	}
	return connect.NewResponse(&ashlarv1.Host{
		Name: "host", Hostname: h.Hostname, Version: h.Version, KernelVersion: h.KernelVersion,
		BootTime:     timestamppb.New(time.Now().Add(-h.Uptime).Truncate(time.Second)),
		BootDuration: durationpb.New(h.BootToCore),
		CpuModel:     h.CPUModel, Cpus: int32(h.CPUs),
		MemoryBytes: h.MemoryTotal, MemoryAvailableBytes: h.MemoryAvailable,
		PoolDevice: h.PoolDevice, PoolBytes: h.PoolTotal, PoolFreeBytes: h.PoolFree,
		Addresses: h.Addresses, Kvm: h.KVM, Iommu: h.IOMMU, SecureBoot: h.SecureBoot,
		Problems: h.Problems, Networks: h.Networks,
	}), nil
}
