package nic

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Follow calls changed after interfaces have come, gone or changed (RTNLGRP_LINK), until ctx
// ends. changed must not wait: what comes too fast is dropped, and told of by one call.
func Follow(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("follow network interfaces: %w", err)
	}
	defer context.AfterFunc(ctx, s.Close)()
	for {
		_, _, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case err == nil, errors.Is(err, unix.ENOBUFS):
			changed()
		default:
			s.Close()
			return fmt.Errorf("follow network interfaces: %w", err)
		}
	}
}
