package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

// refusal is an error as a host sends it.
func refusal(t *testing.T, code connect.Code, text string, details ...proto.Message) error {
	t.Helper()
	e := connect.NewWireError(code, errors.New(text))
	for _, d := range details {
		ed, err := connect.NewErrorDetail(d)
		if err != nil {
			t.Fatal(err)
		}
		e.AddDetail(ed)
	}
	return fmt.Errorf("start demo: %w", e)
}

func TestExitCode(t *testing.T) {
	dial := connect.NewError(connect.CodeUnavailable, &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	for _, c := range []struct {
		name      string
		err       error
		exit      int
		transient bool
	}{
		{"none", nil, OK, false},
		{"own", With(TimedOut, errors.New("x")), TimedOut, false},
		{"any", errors.New("x"), Failure, false},
		{"interrupted", fmt.Errorf("x: %w", context.Canceled), Interrupted, false},
		{"dial", dial, Unreachable, true},
		{"cut short", connect.NewError(connect.CodeInvalidArgument, io.ErrUnexpectedEOF), Unreachable, true},
		{"no trailers", connect.NewError(connect.CodeInternal, errors.New("x")), Unreachable, true},
		{"local cancel", connect.NewError(connect.CodeCanceled, context.Canceled), Interrupted, false},
		{"local deadline", connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded), TimedOut, false},
		{"restarting", refusal(t, connect.CodeUnavailable, "x"), Unreachable, true},
		{"cancelled by the host", refusal(t, connect.CodeCanceled, "x"), Unreachable, true},
		{"invalid", refusal(t, connect.CodeInvalidArgument, "x"), Usage, false},
		{"not found", refusal(t, connect.CodeNotFound, "x"), NotFound, false},
		{"denied", refusal(t, connect.CodePermissionDenied, "x"), Denied, false},
		{"exists", refusal(t, connect.CodeAlreadyExists, "x"), Conflict, false},
		{"state", refusal(t, connect.CodeFailedPrecondition, "x"), Conflict, false},
		{"aborted", refusal(t, connect.CodeAborted, "x"), Conflict, false},
		{"internal", refusal(t, connect.CodeInternal, "x"), Failure, false},
		{"data loss", refusal(t, connect.CodeDataLoss, "x"), Failure, false},
		{"operation", Operation("FAILED_PRECONDITION", "x"), Conflict, false},
		{"operation, unknown", Operation("NOVEL", ""), Failure, false},
	} {
		if got := ExitCode(c.err); got != c.exit {
			t.Errorf("%s: ExitCode() = %d, want %d", c.name, got, c.exit)
		}
		if got := Transient(c.err); got != c.transient {
			t.Errorf("%s: Transient() = %v, want %v", c.name, got, c.transient)
		}
	}
	if !NotSent(dial) || NotSent(refusal(t, connect.CodeUnavailable, "x")) {
		t.Error("NotSent is wrong")
	}
}

func TestPrint(t *testing.T) {
	flag := func(path string) string {
		return map[string]string{"virtual_machine.cpus": "--cpus"}[path]
	}
	bad := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "virtual_machine.cpus", Description: "is 0: 1 to 128"}, {Field: "page_size", Description: "is -1"},
	}}
	pre := &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
		{Subject: "a", Description: "a boots from it"}, {Subject: "b", Description: "it is in use"},
	}}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"plain", errors.New("read x: no such file"), "ashlarctl: read x: no such file\n"},
		{"host", refusal(t, connect.CodeNotFound, "it does not exist"), "ashlarctl: start demo: it does not exist\n"},
		{"no text", refusal(t, connect.CodeNotFound, ""), "ashlarctl: start demo: the host answered NOT_FOUND\n"},
		{"fields", refusal(t, connect.CodeInvalidArgument, "cpus: is 0; page_size: is -1", bad),
			"ashlarctl: start demo: the host refused this\n  --cpus (virtual_machine.cpus): is 0: 1 to 128\n  page_size: is -1\n"},
		{"preconditions", refusal(t, connect.CodeFailedPrecondition, "it is in use", pre),
			"ashlarctl: start demo: it is in use\n  a boots from it\n"},
		{"unreachable", fmt.Errorf("get host: %w", connect.NewError(connect.CodeUnavailable, errors.New("dial: refused"))),
			"ashlarctl: get host: the host does not answer: dial: refused\n"},
		{"broken", connect.NewError(connect.CodeInternal, errors.New("no trailers")),
			"ashlarctl: the connection to the host broke: no trailers\n"},
		{"interrupted", connect.NewError(connect.CodeCanceled, context.Canceled), "ashlarctl: interrupted\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			Print(&b, c.err, flag)
			if d := cmp.Diff(c.want, b.String()); d != "" {
				t.Errorf("Print() (-want +got):\n%s", d)
			}
		})
	}
}
