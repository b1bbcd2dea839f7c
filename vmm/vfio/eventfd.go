package vfio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An eventFD is an event counter of the kernel's that a goroutine can wait for.
type eventFD struct {
	fd int // of File, whose method Fd would have it block a thread
	*os.File
}

func newEventFD(name string) (*eventFD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd %s: %w", name, err)
	}
	return &eventFD{fd, os.NewFile(uintptr(fd), name)}, nil
}

// blockingEventFD makes one that nobody here waits for.
func blockingEventFD(name string) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make eventfd %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// watchEvents has Config.Error and Config.Request called. A device that does not tell is
// one without.
func (f *Function) watchEvents() error {
	for _, w := range []struct {
		index int
		name  string
		call  func()
	}{
		{irqError, "error", func() { f.metrics.errors.Add(1); f.c.Error() }},
		{irqRequest, "request", f.c.Request},
	} {
		if q := f.dev.irqOf(w.index); q.count == 0 || !q.events {
			continue
		}
		e, err := newEventFD("vfio-" + w.name)
		if err != nil {
			return err
		}
		f.events = append(f.events, e)
		if err := f.dev.setIRQs(w.index, 0, e.fd); err != nil {
			return err
		}
		f.watch.Go(func() { e.watch(w.call) })
	}
	return nil
}

// watch calls f for each signal, until e is closed.
func (e *eventFD) watch(f func()) {
	var b [8]byte
	for {
		if _, err := e.Read(b[:]); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				fmt.Fprintf(os.Stderr, "%s: %v\n", e.Name(), err)
			}
			return
		}
		f()
	}
}
