package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// parseCPU reads what --cpu says: a model, and sockets=N, cores=N, threads=N,
// hyperv and poll=DURATION, with commas between.
func parseCPU(v string) (*protocol.CPU, error) {
	c := &protocol.CPU{}
	for word := range strings.SplitSeq(v, ",") {
		name, value, ok := strings.Cut(word, "=")
		var err error
		switch {
		case word == "hyperv":
			c.HyperV = true
		case !ok:
			c.Model = word
		case name == "sockets":
			c.Sockets, err = strconv.Atoi(value)
		case name == "cores":
			c.Cores, err = strconv.Atoi(value)
		case name == "threads":
			c.Threads, err = strconv.Atoi(value)
		case name == "poll":
			var d time.Duration
			d, err = time.ParseDuration(value)
			ns := uint64(max(d, 0))
			c.HaltPollNs = &ns
		default:
			err = errors.New("want sockets, cores, threads or poll before the =")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
	}
	return c, nil
}
