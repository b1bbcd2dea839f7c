//go:build roottest

package network

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// stream has w connect to address, and n bytes go to or from it by TCP; it returns how
// long that took, until the last of them had arrived.
func (w *world) stream(t *testing.T, address string, n int64, send bool) (took time.Duration) {
	t.Helper()
	w.do(t, func() error {
		c, err := net.DialTimeout("tcp4", address, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		start := time.Now()
		what := []byte{'r'}
		if send {
			what = append(make([]byte, 0, n+1), 's')[:n+1]
		}
		if _, err := c.Write(what); err != nil {
			return err
		}
		if send {
			c.(*net.TCPConn).CloseWrite()
			n = 1
		}
		_, err = io.CopyN(io.Discard, c, n)
		took = time.Since(start)
		return err
	})
	return took
}

// serveStreams serves stream, giving n bytes, until the test ends.
func (w *world) serveStreams(t *testing.T, address string, n int64) {
	t.Helper()
	w.do(t, func() error {
		l, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					what := make([]byte, 1)
					if _, err := io.ReadFull(c, what); err != nil {
						return
					}
					if what[0] == 'r' {
						c.Write(make([]byte, n))
						return
					}
					io.Copy(io.Discard, c)
					c.Write(what)
				}()
			}
		}()
		return nil
	})
}

// TCP keeps to the limits of a NIC in both directions. That it comes near to them is for a
// machine with nothing else to do: the log tells.
func TestTCPKeepsToLimits(t *testing.T) {
	const n = 4 << 20
	host, guest, peer := newWorld(t), newWorld(t), newWorld(t)
	var set *Set
	host.do(t, func() error {
		var problems []string
		set, problems = New(layout.HostInfo{Networks: []layout.Network{{Name: "one", Subnet: "10.80.0.0/24"}}}, nil, slog.Default())
		if len(problems) > 0 {
			return fmt.Errorf("problems: %v", problems)
		}
		return nil
	})
	host.wire(t, "a0", guest, "ashlar0", "", nil)
	host.wire(t, "b0", peer, "ashlar0", "", nil)
	guest.configure(t, "10.80.0.2/24", "")
	peer.configure(t, "10.80.0.3/24", "")
	peer.serveStreams(t, "10.80.0.3:9", n)
	for _, rate := range []uint64{1 << 40, 2 << 20} {
		l := &hostcall.NetworkLimits{BytesPerSecond: rate}
		if rate == 1<<40 {
			l = nil
		}
		host.do(t, func() error {
			_, err := set.SetLimits("a0", &hostcall.NICLimits{Receive: l, Transmit: l})
			return err
		})
		for _, send := range []bool{false, true} {
			took := guest.stream(t, "10.80.0.3:9", n, send).Seconds()
			t.Logf("%d a second, sending %v: %.3f of the limit in %.2f s", rate, send, n/took/float64(rate), took)
			if l == nil {
				continue
			}
			burst, _ := l.Bursts()
			if least := (n - float64(burst)) / float64(rate) / 1.1; took < least {
				t.Errorf("%d bytes a second, sending %v: %.2f s, want at least %.2f", rate, send, took, least)
			}
		}
	}
	host.do(t, func() error {
		c, err := limitCounters("a0")
		if c[rxThrottled] == 0 || c[txThrottled] == 0 || c[txDropped] < c[txThrottled] {
			t.Errorf("counters = %v", c)
		}
		return err
	})
}
