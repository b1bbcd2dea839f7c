package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// All threads have the slack, those that were there and those to come.
func TestLazyTimers(t *testing.T) {
	ask, said := make(chan bool), make(chan int)
	thread := func() {
		runtime.LockOSThread() // and ends with the goroutine
		<-ask
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Error(err)
		}
		said <- n
	}
	go thread()
	lazyTimers()
	go thread()
	for range 2 {
		ask <- true
		if n := <-said; n != int(timerSlack) {
			t.Errorf("a thread has a slack of %d ns, want %d", n, timerSlack)
		}
	}
}
