package service

import (
	"context"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/page"
)

type deviceService struct{ *API }

// ListPciDevices implements DeviceService.
func (s deviceService) ListPciDevices(_ context.Context, req *connect.Request[ashlarv1.ListPciDevicesRequest]) (*connect.Response[ashlarv1.ListPciDevicesResponse], error) {
	all, err := s.Devices.List()
	if err != nil {
		return nil, err
	}
	items, next, err := page.Of("pciDevices", all, (*ashlarv1.PciDevice).GetName, false, req.Msg.PageSize, req.Msg.PageToken)
	return response(&ashlarv1.ListPciDevicesResponse{PciDevices: items, NextPageToken: next}, err)
}

// GetPciDevice implements DeviceService.
func (s deviceService) GetPciDevice(_ context.Context, req *connect.Request[ashlarv1.GetPciDeviceRequest]) (*connect.Response[ashlarv1.PciDevice], error) {
	return response(s.Devices.Get(req.Msg.Name))
}

type hugepageService struct{ *API }

// ListHugepagePools implements HugepageService.
func (s hugepageService) ListHugepagePools(ctx context.Context, _ *connect.Request[ashlarv1.ListHugepagePoolsRequest]) (*connect.Response[ashlarv1.ListHugepagePoolsResponse], error) {
	pools, err := s.Hugepages.List(ctx)
	return response(&ashlarv1.ListHugepagePoolsResponse{HugepagePools: pools}, err)
}

// GetHugepagePool implements HugepageService.
func (s hugepageService) GetHugepagePool(ctx context.Context, req *connect.Request[ashlarv1.GetHugepagePoolRequest]) (*connect.Response[ashlarv1.HugepagePool], error) {
	return response(s.Hugepages.Get(ctx, req.Msg.Name))
}

// SetHugepagePool implements HugepageService.
func (s hugepageService) SetHugepagePool(ctx context.Context, req *connect.Request[ashlarv1.SetHugepagePoolRequest]) (*connect.Response[ashlarv1.HugepagePool], error) {
	return response(s.Hugepages.Set(ctx, req.Msg))
}
