package console

import (
	"net"
	"sync"
	"time"
)

// inputTimeout is how long a guest may leave input unread before it is dropped, as a
// serial line would.
const inputTimeout = 5 * time.Second

// An input carries what a viewer types to the connection that is attached just now.
type input struct {
	// typing is held by who types, so that what was typed first comes first. Lock
	// order: typing, then mu.
	typing sync.Mutex

	mu       sync.Mutex
	conn     net.Conn // nil while the guest does not run: what is typed then is lost
	attached bool     // there has been a connection
	pending  []byte   // typed before the first connection, at most MaxInput bytes
}

func (in *input) attach(conn net.Conn) {
	if conn != nil { // to let go of one does not wait
		in.typing.Lock()
		defer in.typing.Unlock()
	}
	in.mu.Lock()
	in.conn = conn
	first := in.pending
	if conn != nil {
		in.attached, in.pending = true, nil
	}
	in.mu.Unlock()
	if conn != nil {
		typeTo(conn, first)
	}
}

// write is called by one goroutine at a time.
func (in *input) write(b []byte) {
	in.typing.Lock()
	defer in.typing.Unlock()
	in.mu.Lock()
	conn := in.conn
	if !in.attached {
		in.pending = append(in.pending, b[:min(len(b), MaxInput-len(in.pending))]...)
	}
	in.mu.Unlock()
	if conn != nil {
		typeTo(conn, b)
	}
}

func typeTo(conn net.Conn, b []byte) {
	if len(b) == 0 {
		return
	}
	// A connection that has closed is noticed where it is read.
	_ = conn.SetWriteDeadline(time.Now().Add(inputTimeout))
	_, _ = conn.Write(b)
}
