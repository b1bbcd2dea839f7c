//go:build roottest

package guest

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"golang.org/x/sys/unix"
)

// beating returns a bench whose manager asks VMMs more often than it does by default.
func beating(t *testing.T) *bench {
	b := newBench(t)
	b.c.Beat = time.Second
	b.restart(t)
	return b
}

// A VMM that hangs is ended; one that answers is not.
func TestHungVMM(t *testing.T) {
	b := beating(t)
	well, hung := b.start(t, 1, "vm"), b.create(t, 2)
	g := b.guest("stopped")
	g.NICs = nil
	if err := b.Start(t.Context(), hung, g); err != nil {
		t.Fatal(err)
	}
	pid := b.status(t, hung).PID
	if pid <= 0 {
		t.Fatalf("status = %+v", b.status(t, hung))
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if s := b.wait(t, hung, hostcall.Stopped); s.Reason != hostcall.Lost || s.Message != hungMessage {
		t.Errorf("status = %+v, want it lost as it did not answer", s)
	}
	if s := b.status(t, well); s.State != hostcall.Running {
		t.Errorf("the other one is %+v", s)
	}
	if err := b.Kill(t.Context(), well); err != nil {
		t.Fatal(err)
	}
	b.nothingLeft(t)
}

// A tap that is gone is told, with the number of its NIC, and the guest runs on.
func TestTapGone(t *testing.T) {
	b := beating(t)
	guest := b.start(t, 1, "vm")
	link, err := netlink.LinkByName(b.lookup(guest).rec.tap(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	told := func(want []int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			s := b.status(t, guest)
			if slices.Equal(s.TapsGone, want) && s.State == hostcall.Running {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("status = %+v, want NICs %v without a tap", s, want)
			}
		}
	}
	told([]int{0})
	b.letGo(t, guest)
	told([]int{0})
	if err := b.Kill(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), guest, b.guest("vm")); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(b.lookup(guest).rec.tap(0)); err != nil {
		t.Error(err)
	}
	told(nil)
}
