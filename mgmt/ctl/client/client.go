// Package client connects to a host: the ashlar.v1 services over gRPC on
// HTTP/2 and TLS 1.3 with certificates on both sides.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
)

// Times after which a silent connection is tried, and given up.
const (
	pingAfter   = 20 * time.Second
	pingTimeout = 20 * time.Second
	dialTimeout = 10 * time.Second
)

// Options say how to reach a host.
type Options struct {
	// Address is HOST:PORT.
	Address string
	// ServerName is the name in the host's certificate; empty where it is the
	// host part of Address.
	ServerName string
	// CA, Certificate and Key are PEM.
	CA, Certificate, Key []byte
	// Retry is how long unary calls go on trying while the host does not
	// answer; 0 means one attempt.
	Retry time.Duration
	// UserAgent is sent with each call.
	UserAgent string
}

// A Host is a connection to a host. It connects at the first call and after
// every break.
type Host struct {
	Hosts           ashlarv1connect.HostServiceClient
	Images          ashlarv1connect.ImageServiceClient
	VirtualMachines ashlarv1connect.VirtualMachineServiceClient
	Operations      ashlarv1connect.OperationServiceClient
	Watch           ashlarv1connect.WatchServiceClient
	Devices         ashlarv1connect.DeviceServiceClient
	Hugepages       ashlarv1connect.HugepageServiceClient
	Links           ashlarv1connect.LinkServiceClient

	transport *http.Transport
}

// New prepares a connection. The address and the PEM texts must be well formed.
func New(o Options) (*Host, error) {
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return nil, fmt.Errorf("address %q: want HOST:PORT", o.Address)
	}
	conf, err := TLSConfig(o)
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	t := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig: conf,
		Protocols:       &protocols,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	hc := &http.Client{Transport: t}
	url := "https://" + o.Address
	opts := []connect.ClientOption{
		connect.WithGRPC(),
		connect.WithInterceptors(agent(o.UserAgent), retry(o.Retry)),
	}
	return &Host{
		Hosts:           ashlarv1connect.NewHostServiceClient(hc, url, opts...),
		Images:          ashlarv1connect.NewImageServiceClient(hc, url, opts...),
		VirtualMachines: ashlarv1connect.NewVirtualMachineServiceClient(hc, url, opts...),
		Operations:      ashlarv1connect.NewOperationServiceClient(hc, url, opts...),
		Watch:           ashlarv1connect.NewWatchServiceClient(hc, url, opts...),
		Devices:         ashlarv1connect.NewDeviceServiceClient(hc, url, opts...),
		Hugepages:       ashlarv1connect.NewHugepageServiceClient(hc, url, opts...),
		Links:           ashlarv1connect.NewLinkServiceClient(hc, url, opts...),
		transport:       t,
	}, nil
}

// Close ends the connection.
func (h *Host) Close() { h.transport.CloseIdleConnections() }

// TLSConfig is TLS 1.3 with the certificates of o.
func TLSConfig(o Options) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(o.CA) {
		return nil, errors.New("CA: no PEM certificate in it")
	}
	pair, err := tls.X509KeyPair(o.Certificate, o.Key)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		Certificates: []tls.Certificate{pair},
		ServerName:   o.ServerName,
	}, nil
}
