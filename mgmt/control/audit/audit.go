// Package audit writes one line for every call that changes something: who, what,
// with which result.
package audit

import (
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// A Caller is who makes a call, taken from the client certificate.
type Caller struct {
	Name   string // common name
	Serial string // hexadecimal
}

type callerKey struct{}

// WithCaller notes whose call ctx belongs to.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns whose call ctx belongs to.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// CallerOf reads a verified client certificate.
func CallerOf(cert *x509.Certificate) Caller {
	return Caller{Name: cert.Subject.CommonName, Serial: cert.SerialNumber.Text(16)}
}

// An Interceptor logs calls.
type Interceptor struct {
	log *slog.Logger
}

// New makes an Interceptor that writes to log.
func New(log *slog.Logger) *Interceptor { return &Interceptor{log: log} }

// reads are the verbs of methods that change nothing.
var reads = []string{"Get", "List", "Wait", "Watch", "Read", "Check", "ServerReflection"}

func mutating(procedure string) bool {
	method := procedure[strings.LastIndexByte(procedure, '/')+1:]
	for _, verb := range reads {
		if strings.HasPrefix(method, verb) {
			return false
		}
	}
	return true
}

// WrapUnary logs a unary call.
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if !mutating(req.Spec().Procedure) {
			return next(ctx, req)
		}
		began := time.Now()
		res, err := next(ctx, req)
		i.write(ctx, req.Spec().Procedure, target(req.Any()), began, err)
		return res, err
	}
}

// WrapStreamingClient is for clients.
func (i *Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler logs a streaming call, at its end.
func (i *Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if !mutating(conn.Spec().Procedure) {
			return next(ctx, conn)
		}
		began := time.Now()
		named := &namedConn{StreamingHandlerConn: conn}
		err := next(ctx, named)
		i.write(ctx, conn.Spec().Procedure, named.target, began, err)
		return err
	}
}

// A namedConn remembers what the first message named.
type namedConn struct {
	connect.StreamingHandlerConn
	target string
	seen   bool
}

// Receive receives a message.
func (c *namedConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if err == nil && !c.seen {
		c.seen, c.target = true, target(m)
	}
	return err
}

// target is the name of what a request is about.
func target(m any) string {
	switch r := m.(type) {
	case interface{ GetName() string }:
		return clip(r.GetName())
	case interface{ GetImageId() string }:
		return clip("images/" + r.GetImageId())
	case interface{ GetVirtualMachineId() string }:
		return clip("virtualMachines/" + r.GetVirtualMachineId())
	}
	return ""
}

// clip bounds what a client can make a log line hold.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (i *Interceptor) write(ctx context.Context, procedure, target string, began time.Time, err error) {
	result := "OK"
	if err != nil {
		result = connect.CodeOf(err).String()
	}
	c := From(ctx)
	i.log.Info("audit", "who", clip(c.Name), "serial", clip(c.Serial), "call", strings.TrimPrefix(procedure, "/ashlar.v1."),
		"what", target, "result", result, "took", time.Since(began).Round(time.Millisecond))
}
