package console

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// Bounds of what a program may put into the kernel's log: burst lines at once,
// one more each refill.
const (
	burst  = 200
	refill = 50 * time.Millisecond
	// maxLine is where a line without an end is cut.
	maxLine = 4096
)

// Relay copies lines from r, a program's standard error, into the kernel's log
// until r ends. A program that talks too much loses lines, and the log says how
// many: the kernel's log is small and others need it too.
func (l *Log) Relay(prefix string, r io.Reader) {
	lines := bufio.NewReaderSize(r, maxLine)
	b := bucket{tokens: burst, last: time.Now()}
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		ok, lost := b.take(time.Now())
		if lost > 0 {
			l.Kernel(prefix, fmt.Sprintf("(%d lines lost: too many at once)", lost))
		}
		if ok {
			l.Kernel(prefix, string(line))
		}
	}
}

// A bucket is a token bucket that counts what it refuses.
type bucket struct {
	tokens int
	lost   int
	last   time.Time
}

// take reports whether a line may pass, and how many were refused before it.
func (b *bucket) take(now time.Time) (ok bool, lost int) {
	if n := int(now.Sub(b.last) / refill); n > 0 {
		b.tokens = min(burst, b.tokens+n)
		b.last = b.last.Add(time.Duration(n) * refill)
	}
	if b.tokens == 0 {
		b.lost++
		return false, 0
	}
	b.tokens--
	lost, b.lost = b.lost, 0
	return true, lost
}
