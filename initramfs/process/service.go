package process

import (
	"context"
	"sync"
	"syscall"
	"time"
)

// A Service is a program that is started again whenever it ends.
type Service struct {
	// Name is for messages.
	Name string
	// Start starts it once.
	Start func() (*Process, error)
	// Report is told what happens, in a sentence.
	Report  func(message string)
	Backoff Backoff

	mu      sync.Mutex
	current *Process
	stopped bool
	once    sync.Once
	stop    chan struct{}
}

func (s *Service) stopping() chan struct{} {
	s.once.Do(func() { s.stop = make(chan struct{}) })
	return s.stop
}

// Run keeps the program running until Stop.
func (s *Service) Run() {
	stop := s.stopping()
	for {
		started := time.Now()
		end := s.runOnce()
		if end == "" {
			return
		}
		delay := s.Backoff.Next(time.Since(started))
		s.Report(s.Name + ": " + end + "; starting it again in " + delay.String())
		select {
		case <-time.After(delay):
		case <-stop:
			return
		}
	}
}

// runOnce starts the program and waits for its end. It returns "" when the
// service is to stop.
func (s *Service) runOnce() string {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return ""
	}
	p, err := s.Start()
	s.current = p
	s.mu.Unlock()
	if err != nil {
		return err.Error()
	}
	end := p.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ""
	}
	return end
}

// Stop sends SIGTERM to the program and SIGKILL to one that is still there
// when ctx ends. It returns when the program is gone, and reports whether it
// went by itself.
func (s *Service) Stop(ctx context.Context) (graceful bool) {
	s.mu.Lock()
	p, first := s.current, !s.stopped
	s.stopped = true
	s.mu.Unlock()
	if first {
		close(s.stopping())
	}
	if p == nil {
		return true
	}
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.Done():
		return true
	case <-ctx.Done():
	}
	_ = p.Signal(syscall.SIGKILL)
	// A process stuck in the kernel does not go; the machine goes down without it.
	select {
	case <-p.Done():
	case <-time.After(time.Second):
	}
	return false
}
