package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whoever adds a method decides here whether it is audited.
func TestMutating(t *testing.T) {
	for procedure, want := range map[string]bool{
		ashlarv1connect.HostServiceGetHostProcedure:                        false,
		ashlarv1connect.HostServiceGetHostTopologyProcedure:                false,
		ashlarv1connect.HostServiceCheckHostProcedure:                      false,
		ashlarv1connect.ImageServiceCreateImageProcedure:                   true,
		ashlarv1connect.ImageServiceUploadImageProcedure:                   true,
		ashlarv1connect.ImageServiceGetImageProcedure:                      false,
		ashlarv1connect.ImageServiceListImagesProcedure:                    false,
		ashlarv1connect.ImageServiceDeleteImageProcedure:                   true,
		ashlarv1connect.VirtualMachineServiceCreateVirtualMachineProcedure: true,
		ashlarv1connect.VirtualMachineServiceStartVirtualMachineProcedure:  true,
		ashlarv1connect.VirtualMachineServiceStopVirtualMachineProcedure:   true,
		ashlarv1connect.VirtualMachineServiceDeleteVirtualMachineProcedure: true,
		ashlarv1connect.VirtualMachineServiceConsoleProcedure:              true,
		ashlarv1connect.VirtualMachineServiceReadLogProcedure:              false,
		ashlarv1connect.OperationServiceWaitOperationProcedure:             false,
		ashlarv1connect.OperationServiceCancelOperationProcedure:           true,
		ashlarv1connect.DeviceServiceGetPciDeviceProcedure:                 false,
		ashlarv1connect.HugepageServiceListHugepagePoolsProcedure:          false,
		ashlarv1connect.HugepageServiceSetHugepagePoolProcedure:            true,
		ashlarv1connect.WatchServiceWatchProcedure:                         false,
		"/grpc.health.v1.Health/Check":                                     false,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":        false,
	} {
		if got := mutating(procedure); got != want {
			t.Errorf("mutating(%s) = %v, want %v", procedure, got, want)
		}
	}
}

func TestLine(t *testing.T) {
	var out bytes.Buffer
	i := New(slog.New(slog.NewTextHandler(&out, nil)))
	ctx := WithCaller(context.Background(), Caller{Name: "eve\nlevel=ERROR", Serial: "7f"})
	call := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("x"))
	})
	call(ctx, connect.NewRequest(&ashlarv1.StartVirtualMachineRequest{Name: "virtualMachines/" + strings.Repeat("a", 1000)}))
	line := out.String()
	if strings.Count(line, "\n") != 1 || !strings.Contains(line, `who="eve\nlevel=ERROR"`) || !strings.Contains(line, "result=not_found") || len(line) > 400 {
		t.Errorf("line = %q", line)
	}
	if got := From(context.Background()); got != (Caller{}) {
		t.Errorf("From(nobody) = %v", got)
	}
}

func TestTarget(t *testing.T) {
	for want, m := range map[string]any{
		"images/a":          &ashlarv1.CreateImageRequest{ImageId: "a"},
		"virtualMachines/b": &ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "b"},
		"operations/c":      &ashlarv1.CancelOperationRequest{Name: "operations/c"},
		"":                  &ashlarv1.GetHostRequest{},
	} {
		if got := target(m); got != want {
			t.Errorf("target(%T) = %q, want %q", m, got, want)
		}
	}
}
