package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
)

// factsPoll is how often core looks whether init has found out something new: a
// cable may be plugged in after a day, and a lease brings other DNS servers.
const factsPoll = time.Second

// followHost calls changed with what lies at path, and again each time that the
// file is replaced, until ctx ends.
func followHost(ctx context.Context, path string, every time.Duration, log *slog.Logger, changed func(layout.HostInfo)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen os.FileInfo
	for {
		now, err := os.Stat(path)
		if err == nil && (seen == nil || !os.SameFile(now, seen) || !now.ModTime().Equal(seen.ModTime())) {
			seen = now
			info, err := readHost(path)
			if err == nil {
				changed(info)
			} else {
				log.Error("cannot read what init has found out", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
