package iouring

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// kernelThreads counts the threads that the kernel has made for io_uring in
// this process.
func kernelThreads() (n int) {
	names, _ := filepath.Glob("/proc/self/task/*/comm") // the pattern is a good one
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.HasPrefix(string(b), "iou-wrk") { // else it has ended
			n++
		}
	}
	return n
}

// TestWorkers has many flushes under way at once: they share few kernel threads,
// also when another thread submits than the one that made the ring.
func TestWorkers(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const requests = 64
	r, err := New(requests, []*os.File{f}, []Op{OpFsync}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before, most := kernelThreads(), 0 // those of other threads only get fewer
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never given back: its kernel threads end with it
		for round := range int64(10) {
			if _, err := f.WriteAt(make([]byte, 1<<20), round<<20); err != nil {
				t.Error(err)
				return
			}
			for i := range uint64(requests) {
				r.Fdatasync(0, i)
			}
			for left := requests; left > 0; {
				if err := wait(r); err != nil {
					t.Error(err)
					return
				}
				most = max(most, kernelThreads())
				for c, ok := r.Next(); ok; c, ok = r.Next() {
					if left--; c.Result != 0 {
						t.Errorf("flush %d: %d", c.Data, c.Result)
					}
				}
			}
		}
	}()
	<-done
	if most == 0 || most-before > workers {
		t.Errorf("%d kernel threads, %d of them there before: want at most %d more", most, before, workers)
	}
}
