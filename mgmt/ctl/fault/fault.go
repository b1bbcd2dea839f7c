// Package fault tells people and scripts what went wrong: a sentence, the
// details that the host sent (google.rpc error details as AIP-193 uses them)
// and an exit code.
package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"
)

// Exit codes of ashlarctl.
const (
	OK          = 0
	Failure     = 1   // anything not named below
	Usage       = 2   // wrong command line, or the host refused a value in it
	Unreachable = 3   // the host does not answer
	NotFound    = 4   // what was named is not there
	Denied      = 5   // certificate or rights are missing
	Conflict    = 6   // exists already, or is in the wrong state for this
	TimedOut    = 7   // a time-out given by the user, or one of the host's, has passed
	Interrupted = 130 // Ctrl-C
)

// An Exit is an error with an exit code of its own.
type Exit struct {
	Code int
	Err  error
}

// Error is that of Err.
func (e *Exit) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Exit) Unwrap() error { return e.Err }

// With gives err an exit code.
func With(code int, err error) error { return &Exit{Code: code, Err: err} }

// ExitCode is what the process ends with.
func ExitCode(err error) int {
	var exit *Exit
	switch {
	case err == nil:
		return OK
	case errors.As(err, &exit):
		return exit.Code
	case TLS(err):
		return Denied
	case Transient(err):
		return Unreachable
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		if errors.Is(err, context.Canceled) {
			return Interrupted
		}
		return Failure
	}
	switch ce.Code() {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return Usage
	case connect.CodeNotFound:
		return NotFound
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return Denied
	case connect.CodeAlreadyExists, connect.CodeFailedPrecondition, connect.CodeAborted:
		return Conflict
	case connect.CodeDeadlineExceeded:
		return TimedOut
	case connect.CodeCanceled:
		return Interrupted
	}
	return Failure
}

// operationCodes are the canonical codes by the names that operations use.
var operationCodes = map[string]int{
	"INVALID_ARGUMENT":    Usage,
	"OUT_OF_RANGE":        Usage,
	"UNAVAILABLE":         Unreachable,
	"NOT_FOUND":           NotFound,
	"PERMISSION_DENIED":   Denied,
	"UNAUTHENTICATED":     Denied,
	"ALREADY_EXISTS":      Conflict,
	"FAILED_PRECONDITION": Conflict,
	"ABORTED":             Conflict,
	"DEADLINE_EXCEEDED":   TimedOut,
}

// Operation is the error that an operation ended with.
func Operation(code, message string) error {
	exit, ok := operationCodes[code]
	if !ok {
		exit = Failure
	}
	if message == "" {
		message = "failed with " + code
	}
	return With(exit, errors.New(message))
}

// Transient tells whether err says that the connection broke or the host is
// restarting, so that the same call may succeed later. A host that ends may
// cancel calls under way; whether the caller did is seen in its own context.
func Transient(err error) bool {
	var ce *connect.Error
	if !errors.As(err, &ce) || TLS(err) {
		return false
	}
	if connect.IsWireError(ce) {
		return ce.Code() == connect.CodeUnavailable || ce.Code() == connect.CodeCanceled
	}
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal, connect.CodeAborted:
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) // a message cut short
}

// NotSent tells whether err came before anything was sent.
func NotSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// TLS tells whether err says that one side did not accept the other's
// certificate or protocol.
func TLS(err error) bool {
	var (
		verify   *tls.CertificateVerificationError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
	)
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &hostname) ||
		errors.As(err, &invalid) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) || remoteTLS(err)
}

// remoteTLS tells whether the host ended the handshake with an alert.
func remoteTLS(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
