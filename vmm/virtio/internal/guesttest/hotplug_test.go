//go:build roottest

package guesttest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// A live is a guest that runs, in a VMM process in its jail, and what it says.
type live struct {
	*vmm
	lines *bufio.Scanner
}

// begin starts a guest that listens to hotplug=MODE.
func begin(t *testing.T, slots int, more string) *live {
	t.Helper()
	b := &builder{t: t, spec: protocol.Spec{Name: "hotplug", VCPUs: 1, MemoryBytes: memorySize, HotplugSlots: slots}}
	return b.begin(startVMM(t), more)
}

// begin is the same for a guest of b's in a VMM process that is there already.
func (b *builder) begin(v *vmm, more string) *live {
	b.t.Helper()
	i := b.add(os.Open(initramfs))
	b.spec.Boot = protocol.Boot{
		Kernel: b.add(os.Open(kernel)), Initramfs: &i, Cmdline: "console=ttyS0 panic=-1 loglevel=7 " + more,
	}
	b.startIn(v)
	return &live{vmm: v, lines: bufio.NewScanner(v.console())}
}

// says waits for the guest to say text.
func (l *live) says(text string) {
	l.t.Helper()
	for l.lines.Scan() {
		if !strings.HasPrefix(l.lines.Text(), "flood") {
			l.t.Logf("guest says: %s", l.lines.Text())
		}
		if strings.Contains(l.lines.Text(), text) {
			return
		}
		if strings.Contains(l.lines.Text(), "FAILED") {
			break
		}
	}
	l.t.Fatalf("guest has not said %q", text)
}

// without waits until the guest has no device of that name.
func (l *live) without(name string) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		r, _ := l.call(protocol.Request{Method: protocol.Query})
		found := false
		for _, d := range r.Status.Devices {
			found = found || d.Name == name
		}
		if !found {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s has not left: %+v", name, r.Status.Devices)
		}
	}
}

// exits are those to the VMM so far: what a kernel's boot costs.
func (l *live) exits() (sum uint64) {
	r, _ := l.call(protocol.Request{Method: protocol.CountersMethod})
	for _, kind := range []string{"user_io_exits", "user_mmio_exits"} {
		for _, n := range r.Counters.VCPUs[kind] {
			sum += n
		}
	}
	return sum
}

// TestHotplug has Linux's pciehp take devices and give them up.
func TestHotplug(t *testing.T) {
	var none uint64
	for _, slots := range []int{0, 1, protocol.MaxHotplugSlots} {
		l := begin(t, slots, "quiet hotplug=none")
		l.says("hotplug: up")
		n := l.exits()
		if slots == 0 {
			none = n
		}
		t.Logf("%d slots: %d exits to the VMM at init, %d more than with none", slots, n, n-none)
		l.says("guest: passed")
		l.ended()
	}

	taps, ip := tap(t, 77, 1)
	l := begin(t, 2, fmt.Sprintf("hotplug=all peer=%s", echo(t, ip)))
	l.says("hotplug: up")
	first := l.attachDisk(1)
	l.says("hotplug: disk works")
	// A request to a paused guest is answered when it goes on.
	l.call(protocol.Request{Method: protocol.Pause})
	l.call(protocol.Request{Method: protocol.Detach, Device: "disk1"})
	l.call(protocol.Request{Method: protocol.Resume})
	l.says("hotplug: disk left")
	l.without("disk1")
	released(t, first)

	l.networkWorks(taps[0])

	second := l.attachDisk(2)
	l.says("hotplug: second disk busy")
	l.call(protocol.Request{Method: protocol.Detach, Device: "disk2", Force: true})
	l.says("hotplug: second disk torn away")
	l.without("disk2")
	released(t, second)

	// Attached to a paused guest, and while the slot may still be on.
	l.call(protocol.Request{Method: protocol.Pause})
	third := l.attachDisk(3)
	l.call(protocol.Request{Method: protocol.Resume})
	l.says("hotplug: third disk works")
	l.call(protocol.Request{Method: protocol.Detach, Device: "disk3"})
	l.says("hotplug: third disk left")
	l.without("disk3")
	released(t, third)
	l.says("guest: passed")
	l.ended()
	for _, name := range []string{first, second, third} {
		b, err := os.ReadFile(name)
		must(t, err)
		if bytes.Equal(b[:4096], make([]byte, 4096)) {
			t.Errorf("nothing of what the guest wrote is on %s", name)
		}
	}
}

// networkWorks attaches a network interface on a tap, and takes it away once the guest has
// used it.
func (l *live) networkWorks(tap *os.File) {
	l.t.Helper()
	v, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	must(l.t, err)
	vhost := protocol.File(1)
	l.call(protocol.Request{Method: protocol.AttachNIC, NewNIC: &protocol.NIC{
		Number: 5, MAC: "02:00:00:00:00:05", Pairs: []protocol.Pair{{Vhost: &vhost}},
	}}, tap, v)
	seqpacket.CloseAll([]*os.File{tap, v})
	l.says("hotplug: network works")
	l.call(protocol.Request{Method: protocol.Detach, Device: "nic5"})
	l.says("hotplug: network left")
	l.without("nic5")
}

// TestCalls has a guest make its VMM do all that needs a rule of the jail and that no other
// test has recorded: memory that is given back and that is plugged in, a socket device, a
// console log that becomes too long, a network interface and a block device that are plugged in.
func TestCalls(t *testing.T) {
	const more, cid = 128 << 20, 77
	b := &builder{t: t, spec: protocol.Spec{Name: "calls", VCPUs: 1, MemoryBytes: memorySize, HotplugSlots: 2}}
	b.spec.Backing = &protocol.Backing{Populate: true}
	b.spec.Pluggable = &protocol.Pluggable{MaxBytes: more}
	b.spec.Vsock = &protocol.Vsock{Vhost: b.add(os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)), CID: cid}
	taps, ip := tap(t, 78, 1)
	l := b.begin(startMarked(t), fmt.Sprintf("quiet hotplug=calls peer=%s memhp_default_state=online_movable", echo(t, ip)))
	l.says("hotplug: console full")
	for _, bytes := range []uint64{memorySize / 4, 0} {
		l.call(protocol.Request{Method: protocol.SetBalloon, BalloonBytes: bytes})
		l.becomes("the balloon", bytes, func() uint64 {
			r, _ := l.call(protocol.Request{Method: protocol.BalloonMethod})
			return r.Balloon.ActualBytes
		})
	}
	for _, bytes := range []uint64{more, 0} {
		l.call(protocol.Request{Method: protocol.SetMemory, PluggedBytes: bytes})
		l.becomes("the memory plugged in", bytes, func() uint64 {
			r, _ := l.call(protocol.Request{Method: protocol.MemoryMethod})
			return r.Memory.PluggedBytes
		})
	}
	l.networkWorks(taps[0])
	node := scratch.Node(t)
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	l.call(protocol.Request{Method: protocol.AttachDisk, NewDisk: &protocol.Disk{Number: 1, Serial: "late1"}}, f)
	l.says("hotplug: disk works")
	l.call(protocol.Request{Method: protocol.Detach, Device: "disk1"})
	l.says("hotplug: disk left")
	l.says("guest: passed")
	l.ended()
	first := make([]byte, 4096)
	if _, err := f.ReadAt(first, 0); err != nil || bytes.Equal(first, make([]byte, len(first))) {
		t.Errorf("nothing of what the guest wrote is on %s: %v", node, err)
	}
}

// becomes waits until something has so many bytes.
func (l *live) becomes(what string, want uint64, read func() uint64) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		got := read()
		if got == want {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s has %d bytes, want %d", what, got, want)
		}
	}
}

// attachDisk attaches a disk that is locked as long as the VMM has it open.
func (l *live) attachDisk(number int) string {
	l.t.Helper()
	name := filepath.Join(l.t.TempDir(), "disk")
	must(l.t, os.WriteFile(name, nil, 0o600))
	must(l.t, os.Truncate(name, diskSize))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(l.t, err)
	defer f.Close()
	must(l.t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	l.call(protocol.Request{Method: protocol.AttachDisk, NewDisk: &protocol.Disk{Number: number, Serial: fmt.Sprintf("late%d", number)}}, f)
	return name
}

// released waits until nobody has the file open, the kernel for io_uring included.
func released(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
}
