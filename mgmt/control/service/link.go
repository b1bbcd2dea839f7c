package service

import (
	"context"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/page"
)

type linkService struct{ *API }

// ListLinks implements LinkService.
func (s linkService) ListLinks(_ context.Context, req *connect.Request[ashlarv1.ListLinksRequest]) (*connect.Response[ashlarv1.ListLinksResponse], error) {
	all, err := s.Devices.ListLinks()
	if err != nil {
		return nil, err
	}
	items, next, err := page.Of("links", all, (*ashlarv1.Link).GetName, false, req.Msg.PageSize, req.Msg.PageToken)
	return response(&ashlarv1.ListLinksResponse{Links: items, NextPageToken: next}, err)
}

// GetLink implements LinkService.
func (s linkService) GetLink(_ context.Context, req *connect.Request[ashlarv1.GetLinkRequest]) (*connect.Response[ashlarv1.Link], error) {
	return response(s.Devices.GetLink(req.Msg.Name))
}

// SetVirtualFunctions implements DeviceService.
func (s deviceService) SetVirtualFunctions(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualFunctionsRequest]) (*connect.Response[ashlarv1.PciDevice], error) {
	return response(s.VFs.Set(ctx, req.Msg))
}
