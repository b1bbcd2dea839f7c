package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked for the kernel may wake a thread of this process from a sleep. Go's thread that watches
// over system calls sleeps for 20 µs again and again while a guest starts, each time taking the CPU from it. What
// has to be in time here does not sleep: guests' timers are KVM's, and ticks timerfd's, which know of no slack.
const timerSlack = time.Millisecond

// lazyTimers sets the slack of all threads; those to come inherit it. Without it the process does the same, with more
// wakes, so that a failure is not told of.
func lazyTimers() {
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0)
}
