package client

import (
	"context"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

// Bounds of the time between attempts.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 3 * time.Second
)

// A Backoff waits ever longer between attempts. Its zero value is ready.
type Backoff struct {
	delay time.Duration
}

// Reset starts over: an attempt has got somewhere.
func (b *Backoff) Reset() { b.delay = 0 }

// Wait waits for the next attempt; it returns the context's error where that
// ends first.
func (b *Backoff) Wait(ctx context.Context) error {
	b.delay = min(max(2*b.delay, firstDelay), lastDelay)
	t := time.NewTimer(b.delay/2 + rand.N(b.delay/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// retry repeats unary calls while the host does not answer, for so long at
// most. Calls that could do something twice are repeated only where nothing
// had been sent.
func retry(limit time.Duration) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			var b Backoff
			start := time.Now()
			for {
				res, err := next(ctx, req)
				if err == nil || ctx.Err() != nil || time.Since(start) >= limit || !mayRepeat(req, err) {
					return res, err
				}
				if b.Wait(ctx) != nil {
					return nil, err
				}
			}
		}
	}
}

// mayRepeat tells whether a failed call may be made again. All calls but
// DeleteImage give the same result twice: they read, or carry a request_id, or
// (CreateImage, CancelOperation) answer a repetition as the first time.
func mayRepeat(req connect.AnyRequest, err error) bool {
	if !fault.Transient(err) {
		return false
	}
	return req.Spec().Procedure != ashlarv1connect.ImageServiceDeleteImageProcedure || fault.NotSent(err)
}

// agentInterceptor names the program in every call.
type agentInterceptor string

func agent(name string) agentInterceptor { return agentInterceptor(name) }

// WrapUnary sets the header of unary calls.
func (a agentInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if a != "" {
			req.Header().Set("User-Agent", string(a))
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient sets the header of streams.
func (a agentInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if a != "" {
			conn.RequestHeader().Set("User-Agent", string(a))
		}
		return conn
	}
}

// WrapStreamingHandler leaves servers alone.
func (a agentInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
