// Package refuse makes the errors that clients see: a canonical code, a sentence
// that says what to do, and details by the model of google.rpc (error_details.proto,
// AIP-193): ErrorInfo always, and BadRequest, PreconditionFailure or ResourceInfo
// where they apply.
package refuse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Domain is the domain of every ErrorInfo.
const Domain = "ashlar"

// Reasons of ErrorInfo: constant, in UPPER_SNAKE_CASE, for programs to test.
const (
	InvalidField    = "INVALID_FIELD"
	NoSuchResource  = "NO_SUCH_RESOURCE"
	NameInUse       = "NAME_IN_USE"
	EtagMismatch    = "ETAG_MISMATCH"
	WrongState      = "WRONG_STATE"
	InUse           = "IN_USE"
	CoreUnavailable = "CORE_UNAVAILABLE"
	CoreRefused     = "CORE_REFUSED"
	LimitReached    = "LIMIT_REACHED"
	UploadBusy      = "UPLOAD_BUSY"
	UploadStalled   = "UPLOAD_STALLED"
	DigestMismatch  = "DIGEST_MISMATCH"
	PoolFull        = "POOL_FULL"
	Cancelled       = "CANCELLED"
	HostRestarted   = "HOST_RESTARTED"
	WatcherTooSlow  = "WATCHER_TOO_SLOW"
	StoreFailed     = "STORE_FAILED"
	InternalFault   = "INTERNAL"
	// Of ConnectVirtualMachine.
	NoVsock           = "NO_VSOCK"
	NoSerialPort      = "NO_SERIAL_PORT"
	PortInUse         = "PORT_IN_USE"
	ConnectionRefused = "CONNECTION_REFUSED"
	ConnectionLost    = "CONNECTION_LOST"
)

// A Violation is one field of a request that is wrong: its path in the proto
// (`virtual_machine.disks[0].size_bytes`) and what to write there.
type Violation struct {
	Field       string
	Description string
}

// New makes an error with code, ErrorInfo and further details.
func New(code connect.Code, reason, message string, details ...proto.Message) error {
	e := connect.NewError(code, errors.New(message))
	add(e, &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
	for _, d := range details {
		add(e, d)
	}
	return e
}

func add(e *connect.Error, m proto.Message) {
	if d, err := connect.NewErrorDetail(m); err == nil {
		e.AddDetail(d)
	}
}

// Invalid refuses a request for its fields, all of them at once. No violation is
// no error.
func Invalid(vs ...Violation) error {
	if len(vs) == 0 {
		return nil
	}
	bad := &errdetails.BadRequest{}
	sentences := make([]string, len(vs))
	for i, v := range vs {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		sentences[i] = v.Field + ": " + v.Description
	}
	return New(connect.CodeInvalidArgument, InvalidField, strings.Join(sentences, "; "), bad)
}

// Field refuses a request for one field.
func Field(field, format string, args ...any) error {
	return Invalid(Violation{field, fmt.Sprintf(format, args...)})
}

// NotFound says that the resource called name is not there.
func NotFound(kind, name string) error {
	return New(connect.CodeNotFound, NoSuchResource, name+" does not exist",
		&errdetails.ResourceInfo{ResourceType: kind, ResourceName: name})
}

// Exists says that name is taken; what says by what and what to do.
func Exists(kind, name, what string) error {
	return New(connect.CodeAlreadyExists, NameInUse, name+" exists already"+what,
		&errdetails.ResourceInfo{ResourceType: kind, ResourceName: name, Description: "the name is in use"})
}

// Precondition says that subject is not in the state that the call needs.
func Precondition(reason, subject, message string) error {
	return New(connect.CodeFailedPrecondition, reason, message, &errdetails.PreconditionFailure{
		Violations: []*errdetails.PreconditionFailure_Violation{{Type: reason, Subject: subject, Description: message}},
	})
}

// Etag says that name has changed since the caller looked.
func Etag(kind, name string) error {
	return New(connect.CodeAborted, EtagMismatch, name+" has changed since you read it: read it again and decide anew",
		&errdetails.ResourceInfo{ResourceType: kind, ResourceName: name})
}

// Internal says that something is wrong on the host's side, and what to do where it is the
// disk below the store.
func Internal(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		return New(connect.CodeResourceExhausted, PoolFull, "the pool is full, so nothing can be stored: delete images, guests or disks, then try again")
	case errors.Is(err, store.ErrDisk), errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS):
		return New(connect.CodeUnavailable, StoreFailed, "the host's data disk fails, so nothing can be stored: `ashlarctl host get` has the problem; try again when it is solved ("+err.Error()+")")
	}
	return New(connect.CodeInternal, InternalFault, err.Error())
}

// Down is the answer while core cannot be asked.
func Down() error {
	return New(connect.CodeUnavailable, CoreUnavailable, "core is restarting, try again")
}

// IsDown reports whether err is because core cannot be asked now.
func IsDown(err error) bool {
	return errors.Is(err, link.ErrDown) || connect.CodeOf(err) == connect.CodeUnavailable
}

var coreCodes = map[hostcall.Code]connect.Code{
	hostcall.InvalidArgument:    connect.CodeInvalidArgument,
	hostcall.NotFound:           connect.CodeNotFound,
	hostcall.AlreadyExists:      connect.CodeAlreadyExists,
	hostcall.FailedPrecondition: connect.CodeFailedPrecondition,
	hostcall.ResourceExhausted:  connect.CodeResourceExhausted,
	hostcall.Unavailable:        connect.CodeUnavailable,
	hostcall.Internal:           connect.CodeInternal,
	hostcall.DeadlineExceeded:   connect.CodeDeadlineExceeded,
}

// Core turns an answer of core into the client's error. field turns a path in the
// Call into one in the client's request ("" where there is none); it may be nil.
func Core(err error, subject string, field func(string) string) error {
	var he *hostcall.Error
	var ce *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ce):
		return err
	case errors.Is(err, link.ErrDown):
		return Down()
	case errors.Is(err, context.Canceled):
		return New(connect.CodeCanceled, Cancelled, "cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return New(connect.CodeDeadlineExceeded, CoreUnavailable, "core did not answer in time: look at the host's console, and try again")
	case !errors.As(err, &he):
		return Internal(err)
	}
	code, known := coreCodes[he.Code]
	if !known {
		code = connect.CodeInternal
	}
	path := ""
	if field != nil && he.Field != "" {
		path = field(he.Field)
	}
	switch {
	case code == connect.CodeInvalidArgument && path != "":
		return Field(path, "%s", he.Message)
	case code == connect.CodeFailedPrecondition && len(he.Violations) > 0:
		return devices(he)
	case code == connect.CodeFailedPrecondition:
		return Precondition(CoreRefused, subject, he.Message)
	case subject != "":
		return New(code, CoreRefused, he.Message, &errdetails.ResourceInfo{ResourceName: subject})
	}
	return New(code, CoreRefused, he.Message)
}

// Sentence is the message of err without its code.
func Sentence(err error) string {
	var ce *connect.Error
	if errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}

// CodeName is the code of err as google.rpc.Code spells it: `FAILED_PRECONDITION`.
func CodeName(err error) string {
	switch code := connect.CodeOf(err); code {
	case connect.CodeCanceled:
		return "CANCELLED"
	default:
		return strings.ToUpper(code.String())
	}
}
