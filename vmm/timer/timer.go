// Package timer ticks by timers of the kernel's (timerfd_create(2)), for what a VMM does every
// few seconds for as long as its guest runs.
//
// A timer of the runtime's that is pending gives the sleep of the runtime's poller a timeout.
// A thread that sleeps so for the queue of a disk, and is interrupted by a completion of
// io_uring (its task work), then wakes a second thread, which sleeps in its place: the two
// share the queue from there on, and each completion wakes both.
package timer

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// A Timer ticks.
type Timer struct{ f *os.File }

// Every makes a timer that ticks every d (more than 0), from now on.
func Every(d time.Duration) (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	t := &Timer{os.NewFile(uintptr(fd), "timer")}
	every := unix.NsecToTimespec(d.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		t.f.Close()
		return nil, fmt.Errorf("set timer to %v: %w", d, err)
	}
	return t, nil
}

// Wait waits for a tick, unless there was one since the last Wait. It is an error once the
// timer is closed.
func (t *Timer) Wait() error { return eventfd.Wait(t.f) }

// Close ends the timer, and whoever waits for it.
func (t *Timer) Close() error { return t.f.Close() }
