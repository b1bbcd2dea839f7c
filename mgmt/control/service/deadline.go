package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
)

const (
	// readTimeout is how long a client may leave a message unfinished, or an upload
	// without the next piece.
	readTimeout = time.Minute
	// writeTimeout is how long a client may leave what it asked for unread.
	writeTimeout = time.Minute
)

type requestKey struct{}

// CloseRead ends the reading of the request that ctx belongs to.
func CloseRead(ctx context.Context) {
	if b, ok := ctx.Value(requestKey{}).(*body); ok {
		b.end()
	}
}

// WithDeadlines lets no client hold a call by being slow: each read and each write has
// a time of its own, however long the call as a whole may take. Only a console may be
// silent, and a connection to a guest also unread: there is a bounded number of them.
func WithDeadlines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		b := &body{ReadCloser: r.Body, rc: rc, timeout: readTimeout}
		out := &writer{ResponseWriter: w, rc: rc, timeout: writeTimeout}
		switch r.URL.Path {
		case ashlarv1connect.VirtualMachineServiceConsoleProcedure:
			b.timeout = 0
		case ashlarv1connect.VirtualMachineServiceConnectVirtualMachineProcedure:
			b.timeout, out.timeout = 0, 0
		}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, b))
		r.Body = b
		next.ServeHTTP(out, r)
	})
}

// A body is a request body with a deadline for each read.
type body struct {
	io.ReadCloser
	rc      *http.ResponseController
	timeout time.Duration

	mu    sync.Mutex
	ended bool
}

// Read reads.
func (b *body) Read(p []byte) (int, error) {
	if b.timeout == 0 {
		if !b.limit(time.Time{}) {
			return 0, io.ErrClosedPipe
		}
		return b.ReadCloser.Read(p)
	}
	if !b.limit(time.Now().Add(b.timeout)) {
		return 0, io.ErrClosedPipe
	}
	defer b.limit(time.Time{})
	return b.ReadCloser.Read(p)
}

// limit sets the time by which a read has to end; false after end.
func (b *body) limit(deadline time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		// A connection that knows no deadlines is bounded by the server's own.
		_ = b.rc.SetReadDeadline(deadline)
	}
	return !b.ended
}

func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	_ = b.rc.SetReadDeadline(time.Now().Add(-time.Second))
}

// A writer is a response with a deadline for each write.
type writer struct {
	http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write writes.
func (w *writer) Write(p []byte) (int, error) {
	defer w.limit()()
	return w.ResponseWriter.Write(p)
}

// Flush flushes.
func (w *writer) Flush() {
	defer w.limit()()
	_ = w.rc.Flush()
}

// FlushError flushes and says how that went.
func (w *writer) FlushError() error {
	defer w.limit()()
	return w.rc.Flush()
}

func (w *writer) limit() (lift func()) {
	if w.timeout == 0 || errors.Is(w.rc.SetWriteDeadline(time.Now().Add(w.timeout)), http.ErrNotSupported) {
		return func() {}
	}
	return func() { _ = w.rc.SetWriteDeadline(time.Time{}) }
}
