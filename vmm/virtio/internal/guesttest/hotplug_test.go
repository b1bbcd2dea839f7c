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
	i := b.add(os.Open(initramfs))
	b.spec.Boot = protocol.Boot{
		Kernel: b.add(os.Open(kernel)), Initramfs: &i, Cmdline: "console=ttyS0 panic=-1 loglevel=7 " + more,
	}
	v := b.start()
	return &live{vmm: v, lines: bufio.NewScanner(v.console())}
}

// says waits for the guest to say text.
func (l *live) says(text string) {
	l.t.Helper()
	for l.lines.Scan() {
		l.t.Logf("guest says: %s", l.lines.Text())
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

	v, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	must(t, err)
	vhost := protocol.File(1)
	l.call(protocol.Request{Method: protocol.AttachNIC, NewNIC: &protocol.NIC{
		Number: 5, MAC: "02:00:00:00:00:05", Pairs: []protocol.Pair{{Vhost: &vhost}},
	}}, taps[0], v)
	seqpacket.CloseAll([]*os.File{taps[0], v})
	l.says("hotplug: network works")
	l.call(protocol.Request{Method: protocol.Detach, Device: "nic5"})
	l.says("hotplug: network left")
	l.without("nic5")

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
