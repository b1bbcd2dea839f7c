// Package service is the API of a host, ashlar.v1, as Connect handlers: it turns
// requests into calls of the packages that do the work, by the conventions of
// google.aip.dev.
package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/control/audit"
	"github.com/ashlar-hv/ashlar/mgmt/control/console"
	"github.com/ashlar-hv/ashlar/mgmt/control/device"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/hugepage"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/tunnel"
	"github.com/ashlar-hv/ashlar/mgmt/control/vf"
)

// maxMessage is the largest message a client may send: a piece of an image as JSON,
// which is base64.
const maxMessage = 2 << 20

// An API is what the services are made of.
type API struct {
	Link       *link.Link
	Feed       *feed.Feed
	Images     *image.Manager
	Machines   *machine.Manager
	Operations *operation.Registry
	Consoles   *console.Server
	Tunnels    *tunnel.Server
	Log        *slog.Logger
	Devices    *device.Manager
	Hugepages  *hugepage.Manager
	VFs        *vf.Manager
	// Closed is why there is no store, and none of the above but Link and Log; nil where
	// all is well.
	Closed error
}

// names of the services, for health and reflection.
var names = []string{
	ashlarv1connect.HostServiceName, ashlarv1connect.ImageServiceName, ashlarv1connect.VirtualMachineServiceName,
	ashlarv1connect.OperationServiceName, ashlarv1connect.WatchServiceName,
	ashlarv1connect.DeviceServiceName, ashlarv1connect.HugepageServiceName, ashlarv1connect.LinkServiceName,
}

// Handler serves all services, health and reflection.
func (a *API) Handler() http.Handler {
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessage),
		connect.WithInterceptors(audit.New(a.Log)),
		connect.WithRecover(a.recovered),
	}
	if a.Closed != nil {
		options = append(options, connect.WithInterceptors(closed{a.Closed}))
	}
	mux := http.NewServeMux()
	mux.Handle(ashlarv1connect.NewHostServiceHandler(hostService{a}, options...))
	mux.Handle(ashlarv1connect.NewImageServiceHandler(imageService{a}, options...))
	mux.Handle(ashlarv1connect.NewVirtualMachineServiceHandler(machineService{a}, options...))
	mux.Handle(ashlarv1connect.NewOperationServiceHandler(operationService{a}, options...))
	mux.Handle(ashlarv1connect.NewWatchServiceHandler(watchService{a}, options...))
	mux.Handle(ashlarv1connect.NewDeviceServiceHandler(deviceService{a}, options...))
	mux.Handle(ashlarv1connect.NewHugepageServiceHandler(hugepageService{a}, options...))
	mux.Handle(ashlarv1connect.NewLinkServiceHandler(linkService{a}, options...))
	mux.Handle(grpchealth.NewHandler(health{a.Link}, options...))
	reflector := grpcreflect.NewStaticReflector(append(names[:len(names):len(names)], grpchealth.HealthV1ServiceName)...)
	mux.Handle(grpcreflect.NewHandlerV1(reflector, options...))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, options...))
	return mux
}

// recovered answers a call that has met a bug of ours; the others go on.
func (a *API) recovered(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
	a.Log.Error("bug: panic in a call", "call", spec.Procedure, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return refuse.Internal(fmt.Errorf("%s met a bug: the host's log has more", spec.Procedure))
}

// health answers grpc.health.v1: the process serves, but guests and images need core.
type health struct{ link *link.Link }

// Check says whether a service serves.
func (h health) Check(_ context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	switch req.Service {
	case "", ashlarv1connect.OperationServiceName, ashlarv1connect.WatchServiceName, grpchealth.HealthV1ServiceName:
		return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
	case ashlarv1connect.HostServiceName, ashlarv1connect.ImageServiceName, ashlarv1connect.VirtualMachineServiceName,
		ashlarv1connect.DeviceServiceName, ashlarv1connect.HugepageServiceName, ashlarv1connect.LinkServiceName:
		if h.link.Up() {
			return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
		}
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no service %q", req.Service))
}

// ticket makes the ticket of a request that has a request_id.
func ticket[T interface {
	proto.Message
	GetRequestId() string
}](ctx context.Context, method string, req T) (machine.Ticket, error) {
	rest := proto.Clone(req)
	field := rest.ProtoReflect().Descriptor().Fields().ByName("request_id")
	rest.ProtoReflect().Clear(field)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest)
	if err != nil {
		return machine.Ticket{}, refuse.Internal(err)
	}
	sum := sha256.Sum256(b)
	return machine.NewTicket(audit.From(ctx).Name, method, req.GetRequestId(), hex.EncodeToString(sum[:]))
}
