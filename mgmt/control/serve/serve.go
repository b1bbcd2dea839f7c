// Package serve is the door of a host: TLS 1.3 with a client certificate of the
// operator's CA, or nothing (RFC 8446), and HTTP/2 (RFC 9113) behind it, with a bound
// on everything that a stranger or a slow client could use up.
package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/control/audit"
)

const (
	// headerTimeout bounds the TLS handshake, and the time to the end of the header.
	headerTimeout = 10 * time.Second
	idleTimeout   = 5 * time.Minute
	// A peer that does not answer a ping is gone.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// maxHeader bounds a request's header in bytes.
	maxHeader  = 16 << 10
	maxStreams = 100 // of one connection, at once
	maxConns   = 256 // at once
	maxPerPeer = 64  // connections of one address
	streamBuf  = 1 << 20
	connBuf    = 2 << 20
	// goodbye is how long calls under way may take to end.
	goodbye = 3 * time.Second
)

// ErrNoCA says that nobody can be let in.
var ErrNoCA = errors.New("no client CA is configured")

// An Identity is who the host is and who may call.
type Identity struct {
	ClientCA    string // PEM
	Certificate string // PEM, chain included
	Key         string // PEM
}

// TLS makes the configuration of the door.
func (id Identity) TLS() (*tls.Config, error) {
	if id.ClientCA == "" {
		return nil, fmt.Errorf("%w: put the operator's CA certificate into the configuration (ashlarctl image configure) and restart the host", ErrNoCA)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(id.ClientCA)) {
		return nil, fmt.Errorf("%w that can be read: what is configured holds no certificate in PEM form", ErrNoCA)
	}
	cert, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return nil, fmt.Errorf("read the host's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              pool,
		SessionTicketsDisabled: true, // each connection shows its certificate anew
		NextProtos:             []string{"h2", "http/1.1"},
	}, nil
}

// Serve serves handler on l, which it closes, until ctx ends.
func Serve(ctx context.Context, l net.Listener, config *tls.Config, handler http.Handler, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           withCaller(handler),
		TLSConfig:         config,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(newThrottle(logger), "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
			WriteByteTimeout:          pingAfter,
			MaxReceiveBufferPerStream: streamBuf, MaxReceiveBufferPerConnection: connBuf,
		},
	}
	bound := newBounded(l, maxConns, maxPerPeer)
	defer bound.open.Wait()
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(bound, "", "") }()
	select {
	case err := <-ended:
		_ = server.Close()
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	bye, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = server.Shutdown(bye) // as far as it gets
	<-ended
	_ = server.Close() // the rest, and what was accepted just before the end
	return nil
}

// withCaller notes who calls. The handshake has verified the certificate; a request
// without one cannot be.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "a client certificate is required", http.StatusForbidden)
			return
		}
		ctx := audit.WithCaller(r.Context(), audit.CallerOf(r.TLS.PeerCertificates[0]))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
