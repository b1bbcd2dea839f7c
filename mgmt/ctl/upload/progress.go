package upload

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// Reporter is a Progress that shows something. Close ends it.
type Reporter interface {
	Progress
	io.Closer
}

// NewBars shows a bar per phase on a terminal.
func NewBars(w io.Writer, name string, total int64) Reporter {
	p := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithAutoRefresh())
	return &bars{w: w, p: p, name: name, total: total}
}

type bars struct {
	w            io.Writer
	p            *mpb.Progress
	name         string
	total        int64
	hashed, sent *mpb.Bar
}

func (b *bars) add(what string) *mpb.Bar {
	return b.p.AddBar(b.total,
		mpb.PrependDecorators(decor.Name(what+" "+b.name+" ")),
		mpb.AppendDecorators(
			decor.Percentage(), decor.Name("  "), decor.CountersKibiByte("% .1f / % .1f"),
			decor.Name("  "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f"),
			decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
}

func (b *bars) Hashed(done int64) {
	if b.hashed == nil {
		b.hashed = b.add("reading  ")
	}
	b.hashed.SetCurrent(done)
}

func (b *bars) Sent(done int64) {
	if b.sent == nil {
		b.sent = b.add("uploading")
	}
	b.sent.SetCurrent(done)
}

func (b *bars) Interrupted(err error) {
	fmt.Fprintf(b.p, "interrupted (%s), trying again\n", fault.Sentence(err))
}

// Close leaves the bars as they are and gives the terminal back.
func (b *bars) Close() error {
	for _, bar := range []*mpb.Bar{b.hashed, b.sent} {
		if bar != nil {
			bar.Abort(false)
		}
	}
	b.p.Wait()
	return nil
}

// interval is the time between plain lines.
const interval = 5 * time.Second

// NewLines writes a plain line every few seconds.
func NewLines(w io.Writer, name string, total int64) Reporter {
	return &lines{w: w, name: name, total: total, last: time.Now()}
}

type lines struct {
	w     io.Writer
	name  string
	total int64
	last  time.Time
}

func (l *lines) Hashed(done int64) { l.line("reading", done) }

func (l *lines) Sent(done int64) { l.line("uploading", done) }

func (l *lines) Interrupted(err error) {
	fmt.Fprintf(l.w, "%s: interrupted (%s), trying again\n", l.name, fault.Sentence(err))
}

func (l *lines) Close() error { return nil }

func (l *lines) line(what string, done int64) {
	if time.Since(l.last) < interval {
		return
	}
	l.last = time.Now()
	fmt.Fprintf(l.w, "%s: %s, %d%% of %s\n", l.name, what, done*100/max(l.total, 1), size.Format(l.total))
}

// Silent shows nothing.
type Silent struct{}

// Hashed does nothing.
func (Silent) Hashed(int64) {}

// Sent does nothing.
func (Silent) Sent(int64) {}

// Interrupted does nothing.
func (Silent) Interrupted(error) {}

// Close does nothing.
func (Silent) Close() error { return nil }
