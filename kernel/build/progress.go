package main

import (
	"bytes"
	"io"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/kernel/recipe"
)

// interval is the time between two reports of a running compile.
const interval = 3 * time.Second

// files is about how many files a build makes. It is only for progress.
var files = map[string]int{recipe.Host.Name: 3240, recipe.Guest.Name: 2430}

// progress passes the tools' output on to the log and counts its lines: make prints one for every file it makes.
type progress struct {
	b   *builder
	log io.Writer

	mu    sync.Mutex
	lines int // guarded by mu
}

func newProgress(b *builder, log io.Writer) *progress { return &progress{b: b, log: log} }

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines += bytes.Count(text, []byte("\n"))
	return p.log.Write(text)
}

func (p *progress) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines
}

// during reports progress as long as do runs.
func (p *progress) during(do func() error) error {
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { p.report(done) })
	defer reporter.Wait()
	defer close(done)
	return do()
}

func (p *progress) report(done <-chan struct{}) {
	start, first := time.Now(), p.count()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			n, of := p.count()-first, files[p.b.in.Profile.Name]
			p.b.sayAgain("%4d of about %d files, %2d %%, %s", n, of, min(99, 100*n/of), time.Since(start).Round(time.Second))
		}
	}
}
