// Hostile is the init of a small guest that attacks its virtual machine, for the lab's tests.
//
// It takes all virtio devices but the last disk from their drivers, and drives them by
// itself: their registers through sysfs, configuration space through /dev/mem, rings in a huge
// page, so it wants `hugepages=1` on its kernel's command line. It prints a line
// `HOSTILE ready …` and takes commands on its console, a line each, answered by a line that
// starts with `OK` or `ERR`:
//
//	attack SEED COUNT      make the first so many steps of a seed
//	replay SEED N,N,…      make just these steps of it
//	poweroff               end
//
// A step is one attack on one device. What it does follows from the seed and its number alone,
// so that any steps can be left out; `STEP N DEVICE: ATTACK` says which comes. After each, the device
// has to have asked for a reset where the attack cannot be borne, works again after one, and the
// last disk has not noticed.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		say("ERR %v", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// say prints a line, and waits until all of it has left: the console device prints to the same
// place.
func say(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	const drain = 1
	_ = unix.IoctlSetInt(1, unix.TCSBRK, drain)
}

func run() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	g, err := newGuest()
	if err != nil {
		return err
	}
	var names []string
	for _, d := range g.devices {
		names = append(names, d.kind.name)
	}
	say("HOSTILE ready steps=%d devices=%s", len(g.pairs), strings.Join(names, ","))
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) == 0 {
			continue
		}
		if f[0] == "poweroff" {
			return nil
		}
		out, err := g.command(f)
		if err != nil {
			say("ERR %s: %v", f[0], err)
			continue
		}
		say("OK %s %s", f[0], out)
	}
	return in.Err()
}

// A guest is what attacks.
type guest struct {
	devices   []*device
	pairs     []pair
	bystander *os.File
	want      []byte // what the bystander holds
	broken    int    // how often a device has asked for a reset
}

// A pair is an attack and the device it is for.
type pair struct {
	d *device
	a attack
}

func newGuest() (*guest, error) {
	a, err := newArena()
	if err != nil {
		return nil, err
	}
	space, err := ecam()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/sys/bus/pci/drivers/virtio-pci/0000:*")
	if err != nil {
		return nil, err
	}
	slices.Sort(dirs)
	g := &guest{}
	for _, dir := range slices.Backward(dirs) {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return nil, err
		}
		if g.bystander == nil {
			if ok, err := g.watch(dir); err != nil || ok {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		if err := g.add(dir, space, a); err != nil {
			return nil, err
		}
	}
	if g.bystander == nil || len(g.devices) == 0 {
		return nil, errors.New("want a disk that is left alone, and devices to attack")
	}
	return g, nil
}

// watch makes a disk the bystander.
func (g *guest) watch(dir string) (bool, error) {
	disks, err := filepath.Glob(filepath.Join(dir, "virtio*/block/*"))
	if err != nil || len(disks) == 0 {
		return false, err
	}
	g.bystander, err = os.OpenFile("/dev/"+filepath.Base(disks[0]), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return false, err
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false, err
	}
	copy(page, noise(rand.New(rand.NewPCG(1, 2)), len(page)))
	g.want = page
	_, err = g.bystander.WriteAt(page, 0)
	return true, err
}

func (g *guest) add(dir string, space []byte, a *arena) error {
	f, err := take(dir, space)
	if err != nil {
		return err
	}
	id := uint16(peek(f.config, 2, 2)) - 0x1040
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.id == id })
	if i < 0 {
		return fmt.Errorf("%s is a virtio device of type %d", f.name, id)
	}
	d := &device{function: f, kind: kinds[i], a: a, common: f.caps[capCommon].off}
	g.devices = append(g.devices, d)
	if err := d.works(); err != nil {
		return fmt.Errorf("%s before any attack: %w", d.kind.name, err)
	}
	offered := d.offered()
	for _, one := range attacks {
		if (one.only == nil || slices.Contains(one.only, d.kind.name)) && offered&one.features == one.features {
			g.pairs = append(g.pairs, pair{d, one})
		}
	}
	return d.reset()
}

// works makes an honest request.
func (d *device) works() error {
	if err := d.start(0); err != nil {
		return err
	}
	return d.kind.honest(d)
}

func (g *guest) command(f []string) (string, error) {
	if len(f) != 3 {
		return "", errors.New("want: attack SEED COUNT, or replay SEED N,N,…")
	}
	seed, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return "", err
	}
	var steps []int
	switch f[0] {
	case "attack":
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return "", err
		}
		for i := range n {
			steps = append(steps, i)
		}
	case "replay":
		for s := range strings.SplitSeq(f[2], ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				return "", err
			}
			steps = append(steps, n)
		}
	default:
		return "", errors.New("unknown command")
	}
	g.broken = 0
	for _, n := range steps {
		if err := g.step(seed, n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("seed=%d steps=%d resets=%d", seed, len(steps), g.broken), nil
}

// step makes step n of a seed. Every round goes through all pairs, in an order of its own.
func (g *guest) step(seed uint64, n int) error {
	round, place := n/len(g.pairs), n%len(g.pairs)
	order := rand.New(rand.NewPCG(seed, uint64(round)<<32)).Perm(len(g.pairs))
	p := g.pairs[order[place]]
	say("STEP %d %s: %s", n, p.d.kind.name, p.a.name)
	stuck := time.AfterFunc(2*patience, func() { say("ERR step %d of seed %d (%s: %s): stuck", n, seed, p.d.kind.name, p.a.name) })
	defer stuck.Stop()
	if err := g.attack(p, rand.New(rand.NewPCG(seed, uint64(n)<<32|1))); err != nil {
		return fmt.Errorf("step %d of seed %d (%s: %s): %w", n, seed, p.d.kind.name, p.a.name, err)
	}
	return nil
}

func (g *guest) attack(p pair, r *rand.Rand) error {
	d := p.d
	if err := d.start(p.a.features); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.a.f(d, r)
	d.restore()
	if p.a.breaks {
		if err := wait("DEVICE_NEEDS_RESET", func() bool { return d.status()&needsReset != 0 }); err != nil {
			return fmt.Errorf("%w (status %#x)", err, d.status())
		}
	}
	if d.status()&needsReset != 0 {
		g.broken++
	}
	if err := d.works(); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	if err := d.reset(); err != nil {
		return err
	}
	return g.beside()
}

// beside looks at the disk that is not attacked.
func (g *guest) beside() error {
	page, err := unix.Mmap(-1, 0, len(g.want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(page) }()
	if _, err := g.bystander.ReadAt(page, 0); err != nil {
		return fmt.Errorf("the disk beside: %w", err)
	}
	if !bytes.Equal(page, g.want) {
		return errors.New("the disk beside has other bytes than were written")
	}
	return nil
}
