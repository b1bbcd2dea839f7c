// Package work puts load on a disk, a network and memory, and counts: in a guest, or on the
// host itself to compare with. What is to be done is said in words:
//
//	blk read|write rand|seq SIZE DEPTH SECONDS   direct I/O of SIZE bytes on the disk
//	fsync SECONDS                                4 KiB written and made durable, one at a time
//	send|receive ADDRESS:PORT SECONDS            one TCP stream
//	rtt ADDRESS:PORT SECONDS                     one byte there and back, over TCP
//	packets ADDRESS:PORT SECONDS                 UDP datagrams of 64 bytes
//	touch MIB SECONDS                            8 bytes read at random places of so much memory
//
// At the address is a server of package wire.
package work

import (
	"errors"
	"strconv"
	"time"
)

// A Result is what was done in which time.
type Result struct {
	Ops  int64 // requests, bytes or datagrams
	Took time.Duration
}

var errUsage = errors.New("unknown command, or not its arguments")

// Do does what the words f say, on a disk where that is what they say.
func Do(f []string, disk string) (Result, error) {
	if len(f) == 0 {
		return Result{}, errUsage
	}
	seconds, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		return Result{}, errUsage
	}
	d := time.Duration(seconds) * time.Second
	switch {
	case f[0] == "blk" && len(f) == 6:
		return block(disk, f[1], f[2], f[3], f[4], d)
	case f[0] == "fsync" && len(f) == 2:
		return durable(disk, d)
	case f[0] == "send" && len(f) == 3:
		return send(f[1], d)
	case f[0] == "receive" && len(f) == 3:
		return receive(f[1], d)
	case f[0] == "rtt" && len(f) == 3:
		return roundTrips(f[1], d)
	case f[0] == "packets" && len(f) == 3:
		return packets(f[1], d)
	case f[0] == "touch" && len(f) == 3:
		return touch(f[1], d)
	}
	return Result{}, errUsage
}
