// Inside runs on the lab host, as root, and measures Ashlar's VMM against QEMU: the
// same kernel, initramfs, disk and network for both.
//
// Usage:
//
//	inside -to ADDRESS [-rounds N] [-only PATTERN] [-loads PATTERN] [-sides PATTERN]
//	       [-repeatable] [-outside ADDRESS] [-payload DIR] [-scratch DIR]
//	inside watch PROGRAM ARGUMENT...
//	inside map ADDRESS PAGES MIB UNTOUCHED
//
// It connects to ADDRESS, reads lines of the turns that are done already and an empty one, and sends lines:
// `SAY text`, `SAMPLE json` (figure.Sample), after those of a turn `TURN name`, `ALIVE` every 10 seconds, and
// at the end `DONE` or `FAILED reason`. The payload folder has this program, the
// guest's kernel and its two initramfs; QEMU is on the disk with the serial number
// bench-peer. Everything happens in network and mount namespaces of its own, where the host's
// first network card with SR-IOV comes along for a part that measures it; at the address after
// -outside there is a server of package wire behind that card.
//
// watch and map are for its own use: see watch.go and mapping.go.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
)

// connectionFD is the connection of the process in the new namespaces.
const connectionFD = 3

func main() {
	err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 1 && args[0] == "watch" {
		return watched(args[1:])
	}
	if len(args) > 1 && args[0] == "map" {
		return mapped(args[1:])
	}
	fs := flag.NewFlagSet("inside", flag.ContinueOnError)
	b := &bench{}
	to := fs.String("to", "", "where to send the results")
	fs.IntVar(&b.rounds, "rounds", 5, "of each measurement")
	only := fs.String("only", ".", "run the parts whose name matches")
	loads := fs.String("loads", ".", "and of these the loads whose name matches")
	sides := fs.String("sides", ".", "measure the sides whose name matches")
	fs.BoolVar(&b.repeatable, "repeatable", false, "the host's time counts instructions")
	fs.StringVar(&b.outside, "outside", "", "server behind the network card with SR-IOV")
	fs.Func("card", "the network card with SR-IOV, NAME=ADDRESS; for its own use", b.card.setCard)
	fs.StringVar(&b.payload, "payload", "/run/bench", "folder of this program, kernel and initramfs")
	fs.StringVar(&b.scratch, "scratch", "/data/bench", "folder for disks and sockets")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var err error
	for to, pattern := range map[**regexp.Regexp]string{&b.only: *only, &b.loads: *loads, &b.sides: *sides} {
		if *to, err = regexp.Compile(pattern); err != nil {
			return err
		}
	}
	if *to != "" {
		return b.separate(*to, args)
	}
	// Nobody reads what this says any more when the connection has ended.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	connection := os.NewFile(connectionFD, "connection")
	b.out = bufio.NewWriter(connection)
	if b.done, err = readDone(connection); err != nil {
		return err
	}
	go b.live()
	err = b.run()
	if err != nil {
		return errors.Join(err, b.line("FAILED", strings.ReplaceAll(err.Error(), "\n", " | ")))
	}
	return b.line("DONE", "")
}

// separate connects, and runs this program again in namespaces of its own, with the card that it
// needs.
func (b *bench) separate(to string, args []string) error {
	c, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer f.Close()
	args = append(args, "-to", "")
	needsCard := b.only.MatchString(cardPart)
	if needsCard {
		if b.card, err = findCard(); err != nil {
			return err
		}
		args = append(args, "-card", b.card.String())
	}
	self := exec.Command("/proc/self/exe", args...)
	self.ExtraFiles = []*os.File{f}
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Setsid: true}
	if err := self.Start(); err != nil {
		return err
	}
	if needsCard {
		if err := b.card.lend(self.Process.Pid); err != nil {
			fmt.Fprintln(os.Stderr, "inside:", err) // the part that needs it fails, the others go on
		}
	}
	return self.Wait()
}

// cardPart is the name of the part that needs the card.
const cardPart = "passthrough-network"

// A bench is one run.
type bench struct {
	rounds           int
	only             *regexp.Regexp // parts
	loads, sides     *regexp.Regexp
	repeatable       bool // the host's time counts instructions
	payload, scratch string
	card             card
	outside          string
	// done are the turns that were measured by a run that broke off.
	done map[string]bool
	mu   sync.Mutex // guards out
	out  *bufio.Writer
	// pending are the samples of a turn of one side, which are not sent yet.
	pending []figure.Sample
}

// readDone reads the names of turns, to an empty line.
func readDone(r io.Reader) (map[string]bool, error) {
	done := map[string]bool{}
	in := bufio.NewScanner(r)
	for in.Scan() {
		if in.Text() == "" {
			return done, nil
		}
		done[in.Text()] = true
	}
	return nil, fmt.Errorf("turns that are done: %w", errors.Join(in.Err(), io.ErrUnexpectedEOF))
}

// live says again and again that the host has not stood still.
func (b *bench) live() {
	for b.line("ALIVE", "") == nil {
		time.Sleep(10 * time.Second)
	}
}

func (b *bench) line(word, text string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "%s %s\n", word, text)
	return b.out.Flush()
}

func (b *bench) say(format string, args ...any) { _ = b.line("SAY", fmt.Sprintf(format, args...)) }

// sample keeps one measurement until the turn that it belongs to has ended well.
func (b *bench) sample(name, unit string, better figure.Better, side string, round int, v float64) {
	b.pending = append(b.pending, figure.Sample{Name: name, Unit: unit, Better: better, Side: side, Round: round, Value: v})
}

// send reports the pending samples, also to who watches, and that the turn they are of is done: a run that
// breaks off has not been for nothing.
func (b *bench) send(turn string) error {
	if len(b.pending) == 0 {
		return nil
	}
	for _, s := range b.pending {
		b.say("%s: %s: %.2f %s", s.Side, s.Name, s.Value, s.Unit)
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := b.line("SAMPLE", string(text)); err != nil {
			return err
		}
	}
	b.pending = nil
	return b.line("TURN", turn)
}

// run does all parts that were asked for. One that fails keeps none from what comes after it.
func (b *bench) run() error {
	clean, err := b.prepare()
	if err != nil {
		return err
	}
	defer clean()
	if err := b.warm(); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var errs []error
	for _, p := range []struct {
		name string
		do   func() error
	}{
		{"first-run", b.firstRun},
		{"start", b.startTimes},
		{"memory", b.memory},
		{"block", b.block},
		{"network", b.network},
		{cardPart, b.throughCard},
		{"passthrough-disk", b.throughDisk},
		{"passthrough-pages", b.onPages},
		{"passthrough-mapping", b.mapping},
		{"together", b.together},
	} {
		if !b.only.MatchString(p.name) {
			continue
		}
		if err := p.do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// inOrder calls do for every side that is measured, rounds times, in an order that turns round each time.
func (b *bench) inOrder(what string, rounds int, sides []side, do func(side, int) error) error {
	for round := range rounds {
		b.say("%s, round %d of %d", what, round+1, rounds)
		for i := range sides {
			s := sides[i]
			if round%2 == 1 {
				s = sides[len(sides)-1-i]
			}
			name := fmt.Sprintf("%s, round %d, %s", what, round+1, s.name)
			if !b.sides.MatchString(s.name) || b.done[name] {
				continue
			}
			if err := b.turn(name, s, round, do); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// tries is how often a turn is begun before the run is given up: a guest that ends by
// itself (which the emulation of a CPU can bring about) must not cost the whole run.
const tries = 3

// turn has a side do what is measured. Each failure is told of.
func (b *bench) turn(name string, s side, round int, do func(side, int) error) error {
	for try := 1; ; try++ {
		b.pending = nil
		err := do(s, round)
		if err == nil {
			return b.send(name)
		}
		b.say("%s failed, try %d of %d: %s", s.name, try, tries, strings.ReplaceAll(err.Error(), "\n", " | "))
		if try == tries {
			return err
		}
	}
}
