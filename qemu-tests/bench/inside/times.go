package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
)

// sizes of memory that starts are measured with, in MiB.
var sizes = []int{128, 4096}

// startSides are the sides whose starts are measured. Plain microvm has nothing but a CPU, memory, a serial port and a clock,
// the others have PCI and the devices that a guest of Ashlar's has unless it is bare.
var startSides = []side{ashlar, plainMicrovm, microvm, q35}

// bareSides are those with bare machines.
var bareSides = []side{ashlar, plainMicrovm}

// tiny is the guest whose init only says that it runs.
func tiny(cpus, memoryMiB int) spec {
	return spec{cpus: cpus, memoryMiB: memoryMiB, initramfs: "tiny.cpio"}
}

// warm starts each program once: what a disk gives is the same for all then, the
// page cache's.
func (b *bench) warm() error {
	return b.inOrder("warming up", 1, []side{ashlar, plainMicrovm, microvm, q35}, func(s side, _ int) error {
		g, _, err := b.startAndWait(s, tiny(1, 128))
		if err != nil {
			return err
		}
		g.end()
		return nil
	})
}

// firstRun measures from the VMM's exec to its first KVM_RUN.
func (b *bench) firstRun() error {
	for _, size := range sizes {
		err := b.inOrder(fmt.Sprintf("start to first KVM_RUN with %d MiB", size), b.rounds, startSides,
			func(s side, round int) error {
				w, err := newWatch()
				if err != nil {
					return err
				}
				defer w.close()
				sp := tiny(1, size)
				sp.watch = w
				g, err := s.start(b, sp)
				if err != nil {
					return err
				}
				defer g.end()
				d, err := w.first()
				if err != nil {
					return err
				}
				b.sample(fmt.Sprintf("VMM exec to first KVM_RUN, %d MiB", size), "ms", figure.Lower, s.name, round, milliseconds(d))
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// washed is several times as much memory as a guest touches that only starts; four times that is more than 20 of them do.
const washed = 512 << 20

// wash clears memory of the host's that is free, that which was freed last before all other. QEMU's emulation takes up to 0.4 ms to write
// a page that has had code which was run, once, and hardware none: else a start would pay for the guest before it, more so with
// huge pages.
func wash(size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("wash %d MiB: %w", size>>20, err)
	}
	defer func() { _ = unix.Munmap(b) }()
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // small ones do, too
	for i := 0; i < size; i += os.Getpagesize() {
		b[i] = 1
	}
	return nil
}

// startTimes measures from before the VMM's process is made to the first byte that
// the guest's init prints: of machines with the usual devices, against plain microvm, too, and of bare ones.
func (b *bench) startTimes() error {
	for _, size := range sizes {
		sp := tiny(1, size)
		err := b.startsTo(sp, fmt.Sprintf("start to /init with %d MiB", size), fmt.Sprintf("VMM start to guest's /init, %d MiB", size), startSides)
		if err != nil {
			return err
		}
		sp.bare = true
		err = b.startsTo(sp, fmt.Sprintf("bare start to /init with %d MiB", size), fmt.Sprintf("VMM start to guest's /init, bare, %d MiB", size), bareSides)
		if err != nil {
			return err
		}
	}
	return nil
}

// startsTo measures starts of guests of sp.
func (b *bench) startsTo(sp spec, what, figureName string, sides []side) error {
	return b.inOrder(what, b.rounds, sides, func(s side, round int) error {
		if err := wash(washed); err != nil {
			return err
		}
		g, d, err := b.startAndWait(s, sp)
		if err != nil {
			return err
		}
		defer g.end()
		b.sample(figureName, "ms", figure.Lower, s.name, round, milliseconds(d))
		return nil
	})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// settle is how long a guest is left alone before its memory is looked at: Ashlar's VMM gives back what
// only the start took 15 s after it.
const settle = 16 * time.Second

// idle is how long the exits of a guest with nothing to do are counted.
const idle = 5 * time.Second

// memory measures the VMM's memory without the guest's, and the exits of a guest
// that has nothing to do.
func (b *bench) memory() error {
	for _, cpus := range []int{1, 4, 16} {
		err := b.inOrder(fmt.Sprintf("memory with %d vCPUs", cpus), b.rounds, []side{ashlar, plainMicrovm, q35},
			func(s side, round int) error { return b.memoryOf(s, cpus, round) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) memoryOf(s side, cpus, round int) error {
	sp := tiny(cpus, 128)
	if host := runtime.NumCPU(); cpus > host {
		// More running vCPUs than CPUs wait for one another, for ever where the
		// host is emulated. The VMM has them all the same.
		sp.cmdline = fmt.Sprintf("maxcpus=%d", host)
	}
	g, _, err := b.startAndWait(s, sp)
	if err != nil {
		return err
	}
	defer g.end()
	time.Sleep(settle)
	pss, rss, err := usage(g.cmd.Process.Pid, sp.memoryMiB)
	if err != nil {
		return err
	}
	b.sample(fmt.Sprintf("VMM memory besides the guest's (PSS), %d vCPUs", cpus), "MiB", figure.Lower, s.name, round, pss)
	b.sample(fmt.Sprintf("VMM memory besides the guest's (RSS), %d vCPUs", cpus), "MiB", figure.Lower, s.name, round, rss)
	if cpus > 1 {
		return nil
	}
	before, err := g.exits()
	if err != nil {
		return err
	}
	time.Sleep(idle)
	after, err := g.exits()
	if err != nil {
		return err
	}
	some := after.since(before)
	b.say("%s: exits of an idle guest a second: %s", s.name, some.per(idle.Seconds()))
	b.sample("exits of an idle guest, 1 vCPU", "1/s", figure.Lower, s.name, round, some.all()/idle.Seconds())
	return nil
}

// usage is the memory of a process without that of its guest, in MiB.
func usage(pid, guestMiB int) (pss, rss float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, 0, err
	}
	memfd := strings.Contains(string(text), "/memfd:")
	guest, found := false, false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 5 && strings.Contains(f[0], "-") && len(f[1]) == 4 {
			guest = isGuest(f, memfd, guestMiB)
			found = found || guest
			continue
		}
		if len(f) != 3 || guest {
			continue
		}
		kib, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "Pss:":
			pss += kib / 1024
		case "Rss:":
			rss += kib / 1024
		}
	}
	if !found || pss == 0 {
		return 0, 0, fmt.Errorf("the maps of process %d show no guest memory", pid)
	}
	return pss, rss, nil
}

// isGuest says of a mapping, the words of a line of proc_pid_maps(5), whether it is a guest's memory: the memfd where
// there is one, as Ashlar's VMM has, else the one without a name that is just as large.
func isGuest(f []string, memfd bool, guestMiB int) bool {
	if memfd || len(f) > 5 {
		return len(f) > 5 && strings.HasPrefix(f[5], "/memfd:")
	}
	var from, to uint64
	if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
		return false
	}
	return f[1] == "rw-p" && to-from == uint64(guestMiB)<<20
}

// crowd is how many guests are started together.
const crowd = 20

// together starts many guests at once.
func (b *bench) together() error {
	return b.inOrder(fmt.Sprintf("%d guests together", crowd), b.rounds, []side{ashlar, plainMicrovm}, b.crowdOf)
}

func (b *bench) crowdOf(s side, round int) error {
	if err := wash(4 * washed); err != nil {
		return err
	}
	before, err := available()
	if err != nil {
		return err
	}
	type started struct {
		g   *guest
		at  time.Duration
		err error
	}
	began := time.Now()
	all := make(chan started)
	for range crowd {
		go func() {
			sp := tiny(1, 128)
			sp.crowd, sp.bare = crowd, true // as plain microvm is
			g, _, err := b.startAndWait(s, sp)
			all <- started{g, time.Since(began), err}
		}()
	}
	var last time.Duration
	var errs []error
	var guests []*guest
	for n := range crowd {
		r := <-all
		b.say("%s: %d of %d are there after %.1f s", s.name, n+1, crowd, r.at.Seconds())
		errs = append(errs, r.err)
		last = max(last, r.at)
		if r.g != nil {
			guests = append(guests, r.g)
		}
	}
	defer func() {
		for _, g := range guests {
			g.end()
		}
	}()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	time.Sleep(settle)
	after, err := available()
	if err != nil {
		return err
	}
	b.sample(fmt.Sprintf("%d guests started together: to the last /init", crowd), "s", figure.Lower, s.name, round, last.Seconds())
	b.sample(fmt.Sprintf("%d guests of 128 MiB: memory of the host's in all", crowd), "MiB", figure.Lower, s.name, round, before-after)
	return nil
}

// available is the host's MemAvailable in MiB.
func available() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no MemAvailable in /proc/meminfo")
}
