package refuse

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// detail finds the detail of type T.
func detail[T any](t *testing.T, err error) T {
	t.Helper()
	var zero T
	var ce *connect.Error
	if !errors.As(err, &ce) {
		t.Fatalf("%v is no API error", err)
	}
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := m.(T); ok {
			return v
		}
	}
	t.Errorf("%v has no %T", err, zero)
	return zero
}

func TestCore(t *testing.T) {
	upper := func(f string) string {
		if f == "disks[0].size" {
			return "virtual_machine.disks[0].size_bytes"
		}
		return ""
	}
	refused := func(code hostcall.Code, field string) error {
		return fmt.Errorf("call: %w", &hostcall.Error{Code: code, Field: field, Message: "no."})
	}
	for name, c := range map[string]struct {
		err    error
		code   connect.Code
		reason string
	}{
		"down":         {fmt.Errorf("list: %w", link.ErrDown), connect.CodeUnavailable, CoreUnavailable},
		"cancelled":    {context.Canceled, connect.CodeCanceled, Cancelled},
		"late":         {context.DeadlineExceeded, connect.CodeDeadlineExceeded, CoreUnavailable},
		"other":        {errors.New("x"), connect.CodeInternal, InternalFault},
		"field":        {refused(hostcall.InvalidArgument, "disks[0].size"), connect.CodeInvalidArgument, InvalidField},
		"no field":     {refused(hostcall.InvalidArgument, "x"), connect.CodeInvalidArgument, CoreRefused},
		"state":        {refused(hostcall.FailedPrecondition, ""), connect.CodeFailedPrecondition, CoreRefused},
		"full":         {refused(hostcall.ResourceExhausted, ""), connect.CodeResourceExhausted, CoreRefused},
		"unknown code": {refused("gone-fishing", ""), connect.CodeInternal, CoreRefused},
		"known before": {Field("name", "is wrong"), connect.CodeInvalidArgument, InvalidField},
	} {
		t.Run(name, func(t *testing.T) {
			err := Core(c.err, "virtualMachines/a", upper)
			if got := connect.CodeOf(err); got != c.code {
				t.Errorf("code = %v, want %v", got, c.code)
			}
			if got := detail[*errdetails.ErrorInfo](t, err); got.GetReason() != c.reason || got.GetDomain() != Domain {
				t.Errorf("info = %v, want %s", got, c.reason)
			}
		})
	}
	if err := Core(nil, "", nil); err != nil {
		t.Errorf("Core(nil) = %v", err)
	}
	bad := detail[*errdetails.BadRequest](t, Core(refused(hostcall.InvalidArgument, "disks[0].size"), "", upper))
	if got := bad.GetFieldViolations()[0].GetField(); got != "virtual_machine.disks[0].size_bytes" {
		t.Errorf("field = %q", got)
	}
	pre := detail[*errdetails.PreconditionFailure](t, Core(refused(hostcall.FailedPrecondition, ""), "virtualMachines/a", nil))
	if got := pre.GetViolations()[0]; got.GetSubject() != "virtualMachines/a" || got.GetDescription() != "no." {
		t.Errorf("violation = %v", got)
	}
}

func TestInvalid(t *testing.T) {
	if err := Invalid(); err != nil {
		t.Errorf("Invalid() = %v", err)
	}
	err := Invalid(Violation{"a", "is missing"}, Violation{"b.c", "is 0: at least 1"})
	if got := Sentence(err); got != "a: is missing; b.c: is 0: at least 1" {
		t.Errorf("sentence = %q", got)
	}
	if n := len(detail[*errdetails.BadRequest](t, err).GetFieldViolations()); n != 2 {
		t.Errorf("%d violations", n)
	}
}

func TestCodeName(t *testing.T) {
	for code, want := range map[connect.Code]string{
		connect.CodeCanceled: "CANCELLED", connect.CodeFailedPrecondition: "FAILED_PRECONDITION", connect.CodeDataLoss: "DATA_LOSS",
	} {
		if got := CodeName(New(code, InUse, "x")); got != want {
			t.Errorf("CodeName = %q, want %q", got, want)
		}
	}
	if got := CodeName(errors.New("x")); got != "UNKNOWN" {
		t.Errorf("CodeName = %q", got)
	}
}
