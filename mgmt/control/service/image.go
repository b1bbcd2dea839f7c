package service

import (
	"context"
	"errors"
	"io"
	"os"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/page"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

type imageService struct{ *API }

// CreateImage implements ImageService.
func (s imageService) CreateImage(ctx context.Context, req *connect.Request[ashlarv1.CreateImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	return response(s.Images.Create(ctx, req.Msg))
}

// UploadImage implements ImageService.
func (s imageService) UploadImage(ctx context.Context, stream *connect.ClientStream[ashlarv1.UploadImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	return response(s.Images.Upload(ctx, func() (*ashlarv1.UploadImageRequest, error) {
		if stream.Receive() {
			return stream.Msg(), nil
		}
		err := stream.Err()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, refuse.New(connect.CodeDeadlineExceeded, refuse.UploadStalled, "nothing came for too long: read the image and go on at uploaded_bytes")
		}
		if err != nil {
			return nil, err
		}
		return nil, io.EOF
	}))
}

// GetImage implements ImageService.
func (s imageService) GetImage(_ context.Context, req *connect.Request[ashlarv1.GetImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	return response(s.Images.Get(req.Msg.Name))
}

// ListImages implements ImageService.
func (s imageService) ListImages(_ context.Context, req *connect.Request[ashlarv1.ListImagesRequest]) (*connect.Response[ashlarv1.ListImagesResponse], error) {
	items, next, err := page.Of("images", s.Images.List(), (*ashlarv1.Image).GetName, false, req.Msg.PageSize, req.Msg.PageToken)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&ashlarv1.ListImagesResponse{Images: items, NextPageToken: next}), nil
}

// DeleteImage implements ImageService.
func (s imageService) DeleteImage(ctx context.Context, req *connect.Request[ashlarv1.DeleteImageRequest]) (*connect.Response[ashlarv1.DeleteImageResponse], error) {
	return response(&ashlarv1.DeleteImageResponse{}, s.Images.Delete(ctx, req.Msg.Name, req.Msg.Etag))
}

// response makes a Connect response of a result.
func response[T any](msg *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(msg), nil
}
