package dhcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// Times of the client.
const (
	firstTimeout = 500 * time.Millisecond // until the first repetition; doubles
	tries        = 4
	pause        = 2 * time.Second  // after a discovery without an answer
	discoveries  = 5                // without an answer, before the socket is not trusted any more
	minRenewal   = 15 * time.Second // between two requests to renew
)

// Client keeps an address for one interface.
type Client struct {
	// Interface is its name, which must be up.
	Interface string
	// Hostname is told to the server (option 12).
	Hostname string
	// Events is where they are written, as lines of JSON.
	Events io.Writer
	// Log is where failures are told to people.
	Log io.Writer

	renewal time.Duration // in place of minRenewal; 0 but in tests
}

// Run asks for a lease and renews it until it is lost or ctx ends. Then, and
// when nobody answers for long, the client is to be started anew, with a new
// socket: one that has seen its interface go down hears nothing any more.
func (c *Client) Run(ctx context.Context, conn *nclient4.Client) error {
	for failures := 0; ; failures++ {
		lease, ack, err := c.acquire(ctx, conn)
		if err == nil {
			return c.hold(ctx, conn, lease, ack)
		}
		if ctx.Err() != nil || failures == discoveries {
			return err
		}
		fmt.Fprintf(c.Log, "no lease on %s: %v\n", c.Interface, err)
		sleep(ctx, pause)
	}
}

// hold reports a lease, keeps it, and reports its loss.
func (c *Client) hold(ctx context.Context, conn *nclient4.Client, l Lease, ack *dhcpv4.DHCPv4) error {
	if err := write(c.Events, Event{Lease: &l}); err != nil {
		return err
	}
	reason, err := c.keep(ctx, conn, l, ack)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return write(c.Events, Event{Lost: reason})
}

// Open opens the client's packet socket; it needs CAP_NET_RAW.
func (c *Client) Open() (*nclient4.Client, error) {
	conn, err := nclient4.New(c.Interface, nclient4.WithTimeout(firstTimeout), nclient4.WithRetry(tries))
	if err != nil {
		return nil, fmt.Errorf("open DHCP client on %s: %w", c.Interface, err)
	}
	return conn, nil
}

func (c *Client) options() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
		dhcpv4.WithOption(dhcpv4.OptHostName(c.Hostname)),
		dhcpv4.WithRequestedOptions(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU),
	}
}

// acquire takes the first offer that can be used, and requests it. Servers
// that offer nonsense are passed over.
func (c *Client) acquire(ctx context.Context, conn *nclient4.Client) (Lease, *dhcpv4.DHCPv4, error) {
	discover, err := dhcpv4.NewDiscovery(conn.InterfaceAddr(), c.options()...)
	if err != nil {
		return Lease{}, nil, fmt.Errorf("make DHCP discover: %w", err)
	}
	refused := errors.New("no server answered")
	offer, err := conn.SendAndRead(ctx, nclient4.DefaultServers, discover, func(m *dhcpv4.DHCPv4) bool {
		if m.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		_, err := leaseOf(m)
		if err != nil {
			refused = fmt.Errorf("offer passed over: %w", err)
		}
		return err == nil
	})
	if err != nil {
		return Lease{}, nil, fmt.Errorf("%w (%w)", refused, err)
	}
	got, err := conn.RequestFromOffer(ctx, offer, c.options()...)
	if err != nil {
		return Lease{}, nil, fmt.Errorf("request the lease: %w", err)
	}
	lease, err := leaseOf(got.ACK)
	return lease, got.ACK, err
}

// keep renews the lease at half of its life, then at 7/8 and so on (RFC 2131,
// section 4.4.5), until it is lost; it says why.
func (c *Client) keep(ctx context.Context, conn *nclient4.Client, l Lease, ack *dhcpv4.DHCPv4) (lost string, err error) {
	begin, floor := time.Now(), cmp.Or(c.renewal, minRenewal)
	for {
		left := time.Until(begin.Add(l.Lifetime))
		if left <= 0 {
			return "the lease has expired", nil
		}
		if !sleep(ctx, min(left, max(left/2, floor))) {
			return "", nil
		}
		asked := time.Now()
		renewed, err := conn.Renew(ctx, &nclient4.Lease{Offer: ack, ACK: ack}, c.options()...)
		var nak *nclient4.ErrNak
		if errors.As(err, &nak) {
			return "the server took the lease back", nil
		}
		if err != nil {
			continue // until it expires
		}
		next, err := leaseOf(renewed.ACK)
		if err != nil {
			fmt.Fprintf(c.Log, "renewal on %s: %v\n", c.Interface, err)
			continue
		}
		l, ack, begin = next, renewed.ACK, asked
		if err := write(c.Events, Event{Lease: &l}); err != nil {
			return "", err
		}
	}
}

// sleep waits for d; it reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
