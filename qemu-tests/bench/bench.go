// Package bench compares Ashlar's VMM with QEMU from Debian, inside one lab host, in
// one run, with the same host kernel, guest kernel, initramfs, disk and network:
//
//	peer        QEMU in a Debian root, as a disk image
//	initramfs   what the guests run: guest, and an init that only says that it runs
//	inside      runs on the host, starts the VMMs, measures
//	work        what guest, and inside to compare with, do to disk, network and memory
//	wire        who answers on the network
//	figure      medians, ratios, the table
//
// This package prepares the disks that the host gets for it, starts inside, and takes
// what it sends. The means of each measurement are described where it is made.
package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/initramfs"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/peer"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/wire"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
)

// payloadSize is the size of the disk with the guest's files; it has holes.
const payloadSize = 400 << 20

// Disks are what the host gets for a run.
type Disks struct {
	payload, peer string
}

// Prepare makes the disks: the payload in dir, QEMU's in the cache. top is the top
// of the tree, where out/ has the guest's kernel. say is told what takes long.
func Prepare(top, dir string, say func(string)) (Disks, error) {
	var err error
	d := Disks{payload: filepath.Join(dir, "payload.img")}
	if d.peer, err = peer.Image(say); err != nil {
		return Disks{}, fmt.Errorf("QEMU to compare with: %w", err)
	}
	kernel, err := filepath.Abs(filepath.Join(top, "out/guest-bzImage"))
	if err != nil {
		return Disks{}, err
	}
	if _, err := os.Stat(kernel); err != nil {
		return Disks{}, fmt.Errorf("guest's kernel: %w: make guest-kernel builds it", err)
	}
	source := filepath.Join(top, "qemu-tests/bench")
	work, err := os.MkdirTemp(dir, "payload-")
	if err != nil {
		return Disks{}, err
	}
	defer os.RemoveAll(work)
	if err := errors.Join(
		os.Symlink(kernel, filepath.Join(work, "kernel")),
		initramfs.Tiny(filepath.Join(work, "tiny.cpio")),
		initramfs.Load(filepath.Join(work, "load.cpio"), filepath.Join(source, "guest")),
		initramfs.Build(filepath.Join(source, "inside"), filepath.Join(work, "inside")),
	); err != nil {
		return Disks{}, err
	}
	tree := xfsimage.Tree{}
	for name, mode := range map[string]uint32{"kernel": 0o644, "tiny.cpio": 0o644, "load.cpio": 0o644, "inside": 0o755} {
		tree[name] = xfsimage.Node{File: name, Mode: mode}
	}
	return d, xfsimage.Make(d.payload, payloadSize, work, tree)
}

// Serial number of the disk with the payload.
const payloadSerial = "bench-payload"

// Args are QEMU's arguments that give the lab host the disks. Nothing is written
// to them.
func (d Disks) Args() []string {
	var args []string
	for _, x := range [][2]string{{payloadSerial, d.payload}, {"bench-peer", d.peer}} {
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,snapshot=on,file=%s", x[0], x[1]),
			"-device", fmt.Sprintf("nvme,serial=%s,drive=%s", x[0], x[0]))
	}
	return args
}

// Options of a run.
type Options struct {
	Rounds int // of most measurements
	// Regular expressions for the parts, the loads of these, and the sides, "" for all.
	Only, Loads, Sides string
	// Repeatable is set where the host's time counts instructions.
	Repeatable bool
	// Shell runs a command on the host as root and returns what it printed.
	Shell func(command string) (string, error)
	// Say is told how far the run is.
	Say func(string)
}

// folder on the host where the payload is mounted.
const folder = "/run/bench"

// Run measures on the host and returns the samples, with an error those that came
// before it. It takes a quarter of an hour or more.
func Run(ctx context.Context, o Options) ([]figure.Sample, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	outside, err := wire.Serve("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer outside.Close()
	if err := launch(l.Addr().(*net.TCPAddr).Port, outside, o); err != nil {
		return nil, err
	}
	if err := l.SetDeadline(time.Now().Add(connectLimit)); err != nil {
		return nil, err
	}
	c, err := l.Accept()
	if err != nil {
		said, _ := o.Shell("cat /tmp/bench.log")
		return nil, fmt.Errorf("the host's side of the benchmark does not connect: %w\n%s", err, said)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	samples, err := receive(c, o.Say)
	if err != nil {
		said, _ := o.Shell("cat /tmp/bench.log")
		return samples, fmt.Errorf("%w\n%s", err, strings.TrimSpace(said))
	}
	return append(samples, shares(samples)...), nil
}

// Names of the samples that shares are made of end with the guest's memory.
const (
	firstRun = "VMM exec to first KVM_RUN, "
	toInit   = "VMM start to guest's /init, "
	share    = "share of that before the first KVM_RUN, "
)

// shares are how much of each round's start was before the first KVM_RUN.
func shares(samples []figure.Sample) []figure.Sample {
	var out []figure.Sample
	for _, all := range samples {
		memory, ok := strings.CutPrefix(all.Name, toInit)
		if !ok {
			continue
		}
		for _, first := range samples {
			if first.Name == firstRun+memory && first.Side == all.Side && first.Round == all.Round {
				out = append(out, figure.Sample{Name: share + memory, Unit: "%", Better: figure.Lower,
					Side: all.Side, Round: all.Round, Value: first.Value / all.Value * 100})
			}
		}
	}
	return out
}

// connectLimit is far more than the host's side takes to start.
const connectLimit = time.Minute

// gateway is this machine as the lab host's network sees it (QEMU's user network).
const gateway = "10.0.2.2"

// outsideGateway is this machine as the network of the lab host's card with SR-IOV sees it.
const outsideGateway = "10.0.3.2"

// launch mounts the payload and starts inside in the background.
func launch(port int, outside *wire.Server, o Options) error {
	pattern := func(text string) string { return cmp.Or(text, ".") }
	out, err := o.Shell(fmt.Sprintf("for d in /sys/block/nvme*; do if grep -q %s $d/device/serial; then mkdir -p %s; mount -r -t xfs /dev/$(basename $d) %s; fi; done; if test -x %s/inside; then echo mounted; fi",
		payloadSerial, folder, folder, folder))
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) != "mounted" {
		return fmt.Errorf("mount the disk with the serial number %s on the host: %s", payloadSerial, strings.TrimSpace(out))
	}
	_, outsidePort, err := net.SplitHostPort(outside.Address())
	if err != nil {
		return err
	}
	_, err = o.Shell(fmt.Sprintf("{ %s/inside -to %s:%d -outside %s:%s -rounds %d -only '%s' -loads '%s' -sides '%s' -repeatable=%t >/tmp/bench.log 2>&1 & }",
		folder, gateway, port, outsideGateway, outsidePort, o.Rounds, pattern(o.Only), pattern(o.Loads), pattern(o.Sides), o.Repeatable))
	return err
}

// silenceLimit is far more than the host's side takes from line to line.
const silenceLimit = 10 * time.Minute

// receive reads what inside sends, to its end. With an error it returns the samples
// that came before.
func receive(r io.Reader, say func(string)) ([]figure.Sample, error) {
	var samples []figure.Sample
	in := bufio.NewScanner(r)
	for in.Scan() {
		if c, ok := r.(net.Conn); ok {
			// The next deadline, from what was said last on.
			c.SetReadDeadline(time.Now().Add(silenceLimit))
		}
		word, text, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "SAY":
			say(text)
		case "SAMPLE":
			var s figure.Sample
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return samples, fmt.Errorf("sample %q: %w", text, err)
			}
			samples = append(samples, s)
		case "DONE":
			return samples, nil
		case "FAILED":
			return samples, errors.New(text)
		}
	}
	return samples, fmt.Errorf("the host's side of the benchmark ended before it was done: %w", errors.Join(in.Err(), io.ErrUnexpectedEOF))
}
