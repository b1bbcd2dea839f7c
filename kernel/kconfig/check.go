package kconfig

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Mismatch is an option that the final .config does not have as asked for: its dependencies are not met, another
// option selects it, or the kernel no longer knows it.
type Mismatch struct {
	Option
	Got string // "n" where the option is absent
}

// Mismatches is the error of a .config that differs from its fragments.
type Mismatches []Mismatch

// Error lists option, place, wanted and got value, one per line.
func (ms Mismatches) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d options are not as asked for in the final .config:", len(ms))
	for _, m := range ms {
		fmt.Fprintf(&b, "\n  %s: CONFIG_%s: want %s, got %s", m.Position(), m.Name, m.Value, m.Got)
	}
	return b.String()
}

// Check compares options with config, a final .config. The error is Mismatches where they differ.
func Check(options []Option, config io.Reader) error {
	got, err := values(config)
	if err != nil {
		return err
	}
	var ms Mismatches
	for _, o := range options {
		v, ok := got[o.Name]
		if !ok {
			v = "n"
		}
		if v != o.Value {
			ms = append(ms, Mismatch{Option: o, Got: v})
		}
	}
	if len(ms) > 0 {
		return ms
	}
	return nil
}

// values reads what a .config sets; its comments say only what is not set.
func values(config io.Reader) (map[string]string, error) {
	got := make(map[string]string)
	s := bufio.NewScanner(config)
	for s.Scan() {
		key, v, ok := strings.Cut(s.Text(), "=")
		if n, is := strings.CutPrefix(key, "CONFIG_"); ok && is {
			got[n] = v
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read .config: %w", err)
	}
	return got, nil
}
