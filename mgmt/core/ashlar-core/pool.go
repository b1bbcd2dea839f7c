package main

import (
	"context"
	"log/slog"
	"time"
)

// poolPoll is how often core looks at the data disk.
const poolPoll = 10 * time.Second

// followPool tells the log when a problem of the data disk comes, changes or ends, until ctx
// ends.
func followPool(ctx context.Context, log *slog.Logger, problem func() string) {
	tick := time.NewTicker(poolPoll)
	defer tick.Stop()
	var last string
	var logged time.Time
	for {
		now := problem()
		switch {
		case now == "" && last != "":
			log.Info("the data disk is well again")
			last = ""
		case now != "" && (last == "" || now != last && time.Since(logged) > time.Minute):
			log.Error("problem", "text", now)
			last, logged = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
