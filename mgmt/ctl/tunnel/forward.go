package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	chunk = 32 << 10
	// acceptPause is how long Forward waits after a connection that could not be taken.
	acceptPause = 100 * time.Millisecond
)

// Forward carries each connection that l takes to the target, until ctx ends, and closes
// l. failed is told of those that broke.
func (t Target) Forward(ctx context.Context, l net.Listener, failed func(error)) error {
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			failed(err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		all.Go(func() {
			if err := t.carry(ctx, c); err != nil && ctx.Err() == nil {
				failed(err)
			}
		})
	}
}

// carry is one connection.
func (t Target) carry(ctx context.Context, c net.Conn) error {
	defer c.Close()
	out, ok := c.(Output)
	if !ok {
		return errors.New("the local connection cannot end in one direction only")
	}
	return t.Run(ctx, func(ctx context.Context, send func([]byte) error) error {
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		for buf := make([]byte, chunk); ; {
			n, err := c.Read(buf)
			if n > 0 {
				if err := send(buf[:n]); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}, out, func() {})
}
