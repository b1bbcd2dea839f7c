//go:build roottest

package vhost

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnUnderSignals makes devices while signals rain on the thread, as the
// scheduler's do on a busy host.
func TestOwnUnderSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stop atomic.Bool
	done := make(chan struct{})
	go func(tid int) {
		defer close(done)
		for !stop.Load() {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}(unix.Gettid())
	defer func() {
		stop.Store(true)
		<-done
	}()
	for i := range 200 {
		f, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		d, err := New(f)
		if err != nil {
			f.Close()
			t.Fatalf("device %d: %v", i, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
