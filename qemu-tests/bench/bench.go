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
	// Reboot cuts the host's power, and boots it.
	Reboot func()
	// Say is told how far the run is.
	Say func(string)
}

// folder on the host where the payload is mounted.
const folder = "/run/bench"

// Run measures on the host and returns the samples, with an error those that came
// before it. It takes an hour or more. A host that stands still, or begins anew by itself, which
// the emulation of a CPU can bring about, is booted again, and goes on where it was.
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
	var p progress
	for failed := 0; ; {
		before := len(p.turns)
		err := p.once(ctx, l, outside, o)
		if err == nil {
			break
		}
		if failed++; len(p.turns) > before {
			failed = 1
		}
		if errors.Is(err, errFailed) || ctx.Err() != nil || failed == fruitless {
			return p.samples, err
		}
		o.Say(fmt.Sprintf("the host is lost, and booted again: %s", strings.ReplaceAll(err.Error(), "\n", " | ")))
		o.Reboot()
	}
	return append(p.samples, shares(p.samples)...), nil
}

// fruitless is how many boots of the host on end without a turn that was measured end a run.
const fruitless = 3

// errFailed says that a run has ended by itself, and badly.
var errFailed = errors.New("failed")

// A progress is what has been measured, and the names of the turns that it is of.
type progress struct {
	samples []figure.Sample
	turns   []string
}

// once starts inside, and takes what it sends to its end.
func (p *progress) once(ctx context.Context, l *net.TCPListener, outside *wire.Server, o Options) error {
	if err := launch(l.Addr().(*net.TCPAddr).Port, outside, o); err != nil {
		return err
	}
	if err := l.SetDeadline(time.Now().Add(connectLimit)); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		said, _ := o.Shell("cat /tmp/bench.log")
		return fmt.Errorf("the host's side of the benchmark does not connect: %w\n%s", err, said)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for _, t := range append(p.turns, "") {
		if _, err := fmt.Fprintln(c, t); err != nil {
			return err
		}
	}
	silence := silenceLimit
	if o.Repeatable {
		silence = countedLimit
	}
	err = p.receive(c, silence, o.Say)
	if errors.Is(err, errFailed) {
		said, _ := o.Shell("cat /tmp/bench.log")
		err = fmt.Errorf("%w\n%s", err, strings.TrimSpace(said))
	}
	return err
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

// The host's side has a line every 10 seconds of its time. silenceLimit is far more than these take, also where
// 20 guests at once keep the one CPU for minutes, countedLimit where time counts instructions and is many times
// slower than ours.
const (
	silenceLimit = 6 * time.Minute
	countedLimit = 15 * time.Minute
)

// receive reads what inside sends, to its end. The samples of a turn count once that is done.
func (p *progress) receive(r io.Reader, silence time.Duration, say func(string)) error {
	var pending []figure.Sample
	in := bufio.NewScanner(r)
	for in.Scan() {
		if c, ok := r.(net.Conn); ok {
			// The next deadline, from what was said last on.
			c.SetReadDeadline(time.Now().Add(silence))
		}
		word, text, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "SAY":
			say(text)
		case "SAMPLE":
			var s figure.Sample
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return fmt.Errorf("sample %q: %w: %w", text, err, errFailed)
			}
			pending = append(pending, s)
		case "TURN":
			p.turns, p.samples, pending = append(p.turns, text), append(p.samples, pending...), nil
		case "DONE":
			return nil
		case "FAILED":
			return fmt.Errorf("the host's side of the benchmark %w: %s", errFailed, text)
		}
	}
	return fmt.Errorf("the host's side of the benchmark ended before it was done: %w", errors.Join(in.Err(), io.ErrUnexpectedEOF))
}
