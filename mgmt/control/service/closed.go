package service

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

// closed refuses all calls that need the store, which cannot be opened.
type closed struct{ why error }

// refuses reports whether a call needs the store: all of ours but one do.
func (c closed) refuses(s connect.Spec) error {
	if !strings.HasPrefix(s.Procedure, "/ashlar.v1.") || s.Procedure == ashlarv1connect.HostServiceGetHostProcedure {
		return nil
	}
	return refuse.New(connect.CodeUnavailable, refuse.StoreFailed, storeProblem(c.why))
}

func storeProblem(why error) string {
	return "control has no store, and tries again by itself; guests keep running: " + why.Error()
}

// WrapUnary refuses a unary call.
func (c closed) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := c.refuses(req.Spec()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient is for clients.
func (c closed) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler refuses a streaming call.
func (c closed) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := c.refuses(conn.Spec()); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}
