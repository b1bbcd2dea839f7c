package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/wire"
)

// seconds of each measurement under load: with 2 what a VMM does for the first time, and the console's
// characters at both ends, were a tenth of it.
const seconds = 5

// loadSides are the sides with PCI, of which the guest's kernel has the drivers.
var loadSides = []side{ashlar, microvm, q35}

// A load is a command for the guest, and the figure that comes of it.
type load struct {
	name    string
	command string
	unit    string
	better  figure.Better
	value   func(ops, seconds float64) float64
	// perExit names the figure of exits for each of ops, "" for none.
	perExit string
	// exitUnit divides ops for it, 1 where 0.
	exitUnit float64
	// mayFail: where it does it is told of, and the figure left out.
	mayFail bool
}

// limit is far more than a load takes on a host that is busy, less where one is known to stand still.
func (l load) limit() time.Duration {
	if l.mayFail {
		return 45 * time.Second
	}
	return 2 * time.Minute
}

func perSecond(ops, s float64) float64    { return ops / s }
func microseconds(ops, s float64) float64 { return s / ops * 1e6 }
func mebibytes(size float64) func(ops, s float64) float64 {
	return func(ops, s float64) float64 { return ops * size / s / (1 << 20) }
}

const (
	diskName = "disk.img"
	diskMiB  = 256
)

func blockLoads() []load {
	return []load{
		{"4 KiB random reads, depth 1", "blk read rand 4096 1", "1/s", figure.Higher, perSecond, "exits per 4 KiB read, depth 1", 0, false},
		{"4 KiB random reads, depth 32", "blk read rand 4096 32", "1/s", figure.Higher, perSecond, "exits per 4 KiB read, depth 32", 0, false},
		{"4 KiB random writes, depth 1", "blk write rand 4096 1", "1/s", figure.Higher, perSecond, "", 0, false},
		{"4 KiB random writes, depth 32", "blk write rand 4096 32", "1/s", figure.Higher, perSecond, "exits per 4 KiB write, depth 32", 0, false},
		{"128 KiB sequential reads, depth 4", "blk read seq 131072 4", "MiB/s", figure.Higher, mebibytes(131072), "", 0, false},
		{"128 KiB sequential writes, depth 4", "blk write seq 131072 4", "MiB/s", figure.Higher, mebibytes(131072), "", 0, false},
		{"4 KiB write and fsync, latency", "fsync", "µs", figure.Lower, microseconds, "", 0, false},
	}
}

// block measures a disk on a file, past the host's page cache, with io_uring.
func (b *bench) block() error {
	b.say("writing a disk of %d MiB", diskMiB)
	if err := b.makeDisk(); err != nil {
		return err
	}
	defer os.Remove(b.scratchFile(diskName))
	return b.inOrder("block load", b.rounds, loadSides, func(s side, round int) error {
		sp := spec{cpus: 1, memoryMiB: 256, initramfs: "load.cpio", disk: diskName}
		return b.underLoad(s, sp, round, blockLoads())
	})
}

// makeDisk writes all of it, and leaves none in the page cache: no side meets holes, nor is the first one
// that has to get rid of what is cached.
func (b *bench) makeDisk() error {
	f, err := os.Create(b.scratchFile(diskName))
	if err != nil {
		return err
	}
	defer f.Close()
	piece := make([]byte, 1<<20)
	for i := range piece {
		piece[i] = byte(i * 7)
	}
	for range diskMiB {
		if _, err := f.Write(piece); err != nil {
			return fmt.Errorf("write a disk of %d MiB: %w", diskMiB, err)
		}
	}
	return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// networkLoads are those of a network with a server of package wire at an address.
func networkLoads(to string) []load {
	return []load{
		{"TCP, guest to host", "send " + to, "MiB/s", figure.Higher, mebibytes(1), "exits per MiB sent over TCP", 1 << 20, false},
		{"TCP, host to guest", "receive " + to, "MiB/s", figure.Higher, mebibytes(1), "exits per MiB received over TCP", 1 << 20, false},
		{"TCP round trip of 1 byte", "rtt " + to, "µs", figure.Lower, microseconds, "exits per TCP round trip", 0, false},
		{"UDP datagrams of 64 bytes, guest to host", "packets " + to, "1/s", figure.Higher, perSecond, "exits per UDP datagram", 0, false},
	}
}

// network measures a network card with vhost-net, against this process.
func (b *bench) network() error {
	n, err := newNIC(hostAddress)
	if err != nil {
		return err
	}
	defer n.close()
	server, err := wire.Serve(serverAddress)
	if err != nil {
		return err
	}
	defer server.Close()
	return b.inOrder("network load", b.rounds, loadSides, func(s side, round int) error {
		sp := spec{cpus: 1, memoryMiB: 256, initramfs: "load.cpio", nic: n, cmdline: "bench.ip=" + guestAddress}
		return b.underLoad(s, sp, round, networkLoads(serverAddress))
	})
}

// underLoad starts a guest and has it do all loads.
func (b *bench) underLoad(s side, sp spec, round int, loads []load) error {
	g, _, err := b.startAndWait(s, sp)
	if err != nil {
		return err
	}
	defer g.end()
	for _, l := range loads {
		if !b.loads.MatchString(l.name) {
			continue
		}
		b.say("%s: %s", s.name, l.name)
		err := b.doLoad(g, s, l, round)
		if err != nil && l.mayFail {
			b.say("%s: %s failed: %s", s.name, l.name, strings.ReplaceAll(err.Error(), "\n", " | "))
		} else if err != nil {
			return g.why(err)
		}
	}
	return nil
}

func (b *bench) doLoad(g *guest, s side, l load, round int) error {
	before, err := g.exits()
	if err != nil {
		return err
	}
	host, err := hostCounts()
	if err != nil {
		return err
	}
	ops, took, err := g.console.command(fmt.Sprintf("%s %d", l.command, seconds), l.limit())
	if err != nil {
		return err
	}
	after, err := g.exits()
	if err != nil {
		return err
	}
	hostAfter, err := hostCounts()
	if err != nil {
		return err
	}
	b.sample(l.name, l.unit, l.better, s.name, round, l.value(ops, took))
	if l.perExit != "" {
		some, each := after.since(before), ops/max(l.exitUnit, 1)
		b.say("%s: %s: %s", s.name, l.perExit, some.per(each))
		b.say("%s: %s: of the host's %s", s.name, l.perExit, hostAfter.since(host).per(each))
		b.sample(l.perExit, "1", figure.Lower, s.name, round, some.all()/each)
	}
	return nil
}
