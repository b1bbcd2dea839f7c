package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// invoke makes a unary call as any gRPC client would.
func invoke[Res any, P interface {
	*Res
	proto.Message
}](ctx context.Context, c *grpc.ClientConn, method string, in proto.Message) (P, error) {
	out := P(new(Res))
	return out, c.Invoke(ctx, "/ashlar.v1."+method, in, out)
}

func (l *lab) grpc() *grpc.ClientConn {
	l.t.Helper()
	c, err := grpc.NewClient(l.address, grpc.WithTransportCredentials(credentials.NewTLS(l.ca.Client(l.t, l.ca))))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

func TestStockClient(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	c := l.grpc()
	h, err := invoke[ashlarv1.Host](ctxOf(t), c, "HostService/GetHost", &ashlarv1.GetHostRequest{})
	if err != nil || h.Hostname != "lab" {
		t.Errorf("host: %v, %v", h, err)
	}
	_, err = invoke[ashlarv1.VirtualMachine](ctxOf(t), c, "VirtualMachineService/GetVirtualMachine", &ashlarv1.GetVirtualMachineRequest{Name: "virtualMachines/none"})
	if st := status.Convert(err); st.Code() != codes.NotFound || len(st.Details()) != 2 {
		t.Errorf("status = %v, details %v", st, st.Details())
	}
	op, err := invoke[ashlarv1.Operation](ctxOf(t), c, "VirtualMachineService/StartVirtualMachine", &ashlarv1.StartVirtualMachineRequest{Name: vm.Name})
	if err != nil {
		t.Fatal(err)
	}
	l.wait(op.Name)

	health := healthpb.NewHealthClient(c)
	for _, service := range []string{"", "ashlar.v1.VirtualMachineService"} {
		res, err := health.Check(ctxOf(t), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, res, err)
		}
	}

	stream, err := c.NewStream(ctxOf(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/ashlar.v1.VirtualMachineService/Console")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&ashlarv1.ConsoleRequest{Name: vm.Name}); err != nil {
		t.Fatal(err)
	}
	l.core.Print(vm.Uid, "hello")
	var res ashlarv1.ConsoleResponse
	if err := stream.RecvMsg(&res); err != nil || string(res.Output) != "hello" {
		t.Errorf("console: %v, %v", &res, err)
	}
}

func TestReflection(t *testing.T) {
	l := newLab(t)
	c := l.grpc()
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, s := range res.GetListServicesResponse().GetService() {
		names = append(names, s.Name)
	}
	for _, want := range []string{"ashlar.v1.HostService", "ashlar.v1.ImageService", "ashlar.v1.VirtualMachineService", "ashlar.v1.OperationService", "ashlar.v1.WatchService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("services %v lack %s", names, want)
		}
	}
	res = ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "ashlar.v1.VirtualMachineService.Console"}})
	files := res.GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) == 0 {
		t.Fatalf("no descriptor: %v", res)
	}
	var fd descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(files[0], &fd); err != nil || !strings.HasPrefix(fd.GetName(), "ashlar/v1/") {
		t.Errorf("descriptor %q, %v", fd.GetName(), err)
	}
	stream.CloseSend()

	old, err := reflectionv1alpha.NewServerReflectionClient(c).ServerReflectionInfo(ctxOf(t)) //nolint:staticcheck // older clients ask for it
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil { //nolint:staticcheck // older clients ask for it
		t.Fatal(err)
	}
	if _, err := old.Recv(); err != nil {
		t.Errorf("v1alpha: %v", err)
	}
	old.CloseSend()
}

// A browser or curl can use it, too.
func TestJSON(t *testing.T) {
	l := newLab(t)
	for _, h2 := range []bool{true, false} {
		transport := &http.Transport{TLSClientConfig: l.ca.Client(t, l.ca), ForceAttemptHTTP2: h2}
		client := &http.Client{Transport: transport}
		res, err := client.Post("https://"+l.address+"/ashlar.v1.HostService/GetHost", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Hostname string }
		if err := json.NewDecoder(res.Body).Decode(&doc); err != nil || doc.Hostname != "lab" {
			t.Errorf("host: %v, %v", doc, err)
		}
		if (res.ProtoMajor == 2) != h2 {
			t.Errorf("spoke %s", res.Proto)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		// Too large a message is refused, not read.
		body := append([]byte(`{"name":"`), bytes.Repeat([]byte("x"), 3<<20)...)
		res, err = client.Post("https://"+l.address+"/ashlar.v1.ImageService/GetImage", "application/json", bytes.NewReader(append(body, `"}`...)))
		if err == nil {
			if res.StatusCode != http.StatusTooManyRequests {
				b, _ := io.ReadAll(res.Body)
				t.Errorf("3 MiB: %s %s", res.Status, b)
			}
			res.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}
