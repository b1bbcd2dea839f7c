package hosttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// CreateImage announces an upload.
func (h *Host) CreateImage(_ context.Context, req *connect.Request[ashlarv1.CreateImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := "images/" + req.Msg.GetImageId()
	want := req.Msg.GetImage()
	if have := h.images[name]; have != nil {
		if have.GetSha256() != want.GetSha256() {
			return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("%s exists already with another content: choose another name, or delete it first", name))
		}
		return reply(have), nil
	}
	img := proto.CloneOf(want)
	img.Name, img.State, img.CreateTime = name, ashlarv1.Image_STATE_UPLOADING, timestamppb.New(Time)
	img.Uid = fmt.Sprintf("%032x", len(h.images)+1)
	h.images[name] = img
	h.touch()
	return reply(img), nil
}

// reply copies m, which may change after the call.
func reply[T any, M interface {
	*T
	proto.Message
}](m M) *connect.Response[T] {
	return connect.NewResponse((*T)(proto.CloneOf(m)))
}

// UploadImage takes content.
func (h *Host) UploadImage(_ context.Context, st *connect.ClientStream[ashlarv1.UploadImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	name := ""
	for st.Receive() {
		if name == "" {
			name = st.Msg().GetName()
		}
		if err := h.piece(name, st.Msg()); err != nil {
			return nil, err
		}
	}
	if err := st.Err(); err != nil {
		return nil, err
	}
	return h.complete(name)
}

// piece takes one message.
func (h *Host) piece(name string, m *ashlarv1.UploadImageRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	img := h.images[name]
	switch {
	case img == nil:
		return notFound(name)
	case m.GetOffset() > img.GetUploadedBytes():
		return violation("offset", fmt.Sprintf("is %d: go on at %d", m.GetOffset(), img.GetUploadedBytes()))
	case len(m.GetData()) > 1<<20:
		return violation("data", "more than 1 MiB")
	}
	c := append(h.content[name][:m.GetOffset()], m.GetData()...)
	h.content[name] = append(c, make([]byte, m.GetZeroes())...)
	img.UploadedBytes = int64(len(h.content[name]))
	h.data, h.zeroes = h.data+int64(len(m.GetData())), h.zeroes+m.GetZeroes()
	if h.breakUpload > 0 && img.GetUploadedBytes() >= h.breakUpload {
		h.breakUpload = 0
		panic(http.ErrAbortHandler) // the stream is reset
	}
	return nil
}

// complete checks the digest.
func (h *Host) complete(name string) (*connect.Response[ashlarv1.Image], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	img := h.images[name]
	if img == nil {
		return nil, notFound(name)
	}
	if img.GetUploadedBytes() == img.GetSizeBytes() {
		if sum := sha256.Sum256(h.content[name]); hex.EncodeToString(sum[:]) != img.GetSha256() {
			delete(h.images, name)
			delete(h.content, name)
			return nil, connect.NewError(connect.CodeDataLoss, errors.New(name+" does not have the SHA-256 that was announced: it has been deleted, upload it again"))
		}
		img.State = ashlarv1.Image_STATE_READY
	}
	h.touch()
	return reply(img), nil
}

// GetImage returns an image.
func (h *Host) GetImage(_ context.Context, req *connect.Request[ashlarv1.GetImageRequest]) (*connect.Response[ashlarv1.Image], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	img := h.images[req.Msg.GetName()]
	if img == nil {
		return nil, notFound(req.Msg.GetName())
	}
	return reply(img), nil
}

// ListImages gives two at a time, so that clients have to ask for more.
func (h *Host) ListImages(_ context.Context, req *connect.Request[ashlarv1.ListImagesRequest]) (*connect.Response[ashlarv1.ListImagesResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, next := page(slices.Sorted(maps.Keys(h.images)), req.Msg.GetPageToken())
	res := &ashlarv1.ListImagesResponse{NextPageToken: next}
	for _, n := range names {
		res.Images = append(res.Images, proto.CloneOf(h.images[n]))
	}
	return connect.NewResponse(res), nil
}

// page is the part of names after token, and the next token.
func page(names []string, token string) ([]string, string) {
	const size = 2
	i, found := slices.BinarySearch(names, token)
	if found {
		i++
	}
	names = names[i:]
	if len(names) <= size {
		return names, ""
	}
	return names[:size], names[size-1]
}

// DeleteImage removes an image.
func (h *Host) DeleteImage(_ context.Context, req *connect.Request[ashlarv1.DeleteImageRequest]) (*connect.Response[ashlarv1.DeleteImageResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := req.Msg.GetName()
	if h.images[name] == nil {
		return nil, notFound(name)
	}
	for _, g := range h.vms {
		if g.vm.GetBoot().GetKernel() == name {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is booted from by %s: delete that first", name, g.vm.GetName()))
		}
	}
	delete(h.images, name)
	h.touch()
	return connect.NewResponse(&ashlarv1.DeleteImageResponse{}), nil
}
