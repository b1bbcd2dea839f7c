package console

import (
	"fmt"
	"os"
)

// A logFile is a file that keeps the last of what is appended.
type logFile struct {
	f           *os.File
	size, limit int64
}

func (l *logFile) append(b []byte) error {
	if l.size+int64(len(b)) > l.limit {
		if err := l.halve(); err != nil {
			return fmt.Errorf("bound console log: %w", err)
		}
	}
	n, err := l.f.WriteAt(b, l.size)
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("append to console log: %w", err)
	}
	return nil
}

// halve drops the older half, up to the end of a line where there is one near.
func (l *logFile) halve() error {
	keep := min(l.size, l.limit/2)
	b := make([]byte, keep)
	if _, err := l.f.ReadAt(b, l.size-keep); err != nil {
		return err
	}
	for i, c := range b[:min(len(b), chunk)] {
		if c == '\n' {
			b = b[i+1:]
			break
		}
	}
	if _, err := l.f.WriteAt(b, 0); err != nil {
		return err
	}
	l.size = int64(len(b))
	return l.f.Truncate(l.size)
}
