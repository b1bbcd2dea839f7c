package serve

import (
	"io"
	"net"
	"sync"
	"time"
)

// A bounded listener keeps the number of connections within limits: one beyond them is
// closed at once, so that a single peer cannot keep the others out.
type bounded struct {
	net.Listener
	total, perPeer int
	open           sync.WaitGroup // accepted, and not closed for good

	mu     sync.Mutex
	count  int
	byPeer map[string]int
}

func newBounded(l net.Listener, total, perPeer int) *bounded {
	return &bounded{Listener: l, total: total, perPeer: perPeer, byPeer: map[string]int{}}
}

// Accept waits for the next connection within the limits.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(c.RemoteAddr())
		if b.enter(peer) {
			return &boundedConn{Conn: c, b: b, leave: func() { b.leave(peer) }}, nil
		}
		c.Close()
	}
}

func peerOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

func (b *bounded) enter(peer string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count >= b.total || b.byPeer[peer] >= b.perPeer {
		return false
	}
	b.count++
	b.byPeer[peer]++
	b.open.Add(1)
	return true
}

func (b *bounded) leave(peer string) {
	defer b.open.Done()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	if b.byPeer[peer]--; b.byPeer[peer] == 0 {
		delete(b.byPeer, peer)
	}
}

// A boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	once  sync.Once
	b     *bounded
	leave func()
}

const (
	// linger is how long a peer may take to close its side.
	linger = 500 * time.Millisecond
	// lingerBytes is how much it may still send meanwhile.
	lingerBytes = 256 << 10
)

// Close closes the connection, this side first: with unread data left it would be
// reset, and a refused client would never read the TLS alert that says why.
func (c *boundedConn) Close() error {
	c.once.Do(func() {
		go func() {
			defer c.leave()
			defer c.Conn.Close()
			half, ok := c.Conn.(interface{ CloseWrite() error })
			if !ok || half.CloseWrite() != nil || c.SetDeadline(time.Now().Add(linger)) != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}()
	})
	return nil
}
