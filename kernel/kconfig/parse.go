// Package kconfig reads configuration fragments of the Linux kernel, joins them, and checks that a final .config
// grants what they ask for. The format follows Documentation/kbuild/kconfig.rst, with two rules more: every option
// has a reason, and no option stands twice.
package kconfig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// maxLine is the longest line a fragment may have, in bytes.
const maxLine = 4096

// Option is one line of a fragment: CONFIG_NAME=VALUE # REASON.
type Option struct {
	Name   string // without CONFIG_
	Value  string // y, n, a number or a quoted string
	Reason string
	File   string
	Line   int // from 1
}

// Position is where the option stands, as file:line.
func (o Option) Position() string { return fmt.Sprintf("%s:%d", o.File, o.Line) }

// Errors in a line of a fragment.
var (
	ErrSyntax   = errors.New("not of the form CONFIG_NAME=VALUE # REASON")
	ErrValue    = errors.New("value is neither y, n, a number nor a quoted string")
	ErrModule   = errors.New("value m: there are no modules")
	ErrNoReason = errors.New("option has no reason")
	ErrTwice    = errors.New("option stands twice")
)

var (
	name  = regexp.MustCompile(`^CONFIG_[A-Za-z0-9_]+$`)
	value = regexp.MustCompile(`^([yn]|-?[0-9]+|0x[0-9a-fA-F]+|"[^"\\]*")$`)
	line  = regexp.MustCompile(`^([^=\s]+)=("[^"]*"|[^\s"#]*)(?:\s+#\s*(.*))?$`)
)

// Parse reads the fragment r, called file in messages. Empty lines and lines that start with # are comments. The
// error holds one line for each wrong line of the fragment, with its position; with an error there are no options.
func Parse(file string, r io.Reader) ([]Option, error) {
	var options []Option
	var errs []error
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		o, err := parseLine(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w: %.80q", file, n, err, text))
			continue
		}
		o.File, o.Line = file, n
		options = append(options, o)
	}
	if err := s.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s:%d: %w", file, n+1, err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return options, nil
}

func parseLine(text string) (Option, error) {
	m := line.FindStringSubmatch(text)
	if m == nil || !name.MatchString(m[1]) {
		return Option{}, ErrSyntax
	}
	reason := strings.TrimSpace(m[3])
	switch {
	case m[2] == "m":
		return Option{}, ErrModule
	case !value.MatchString(m[2]):
		return Option{}, ErrValue
	case reason == "":
		return Option{}, ErrNoReason
	}
	return Option{Name: strings.TrimPrefix(m[1], "CONFIG_"), Value: m[2], Reason: reason}, nil
}

// Merge joins fragments in their order. It refuses an option that stands twice, naming both places: which of two
// wins should never be a question.
func Merge(fragments ...[]Option) ([]Option, error) {
	var merged []Option
	var errs []error
	seen := make(map[string]Option)
	for _, fragment := range fragments {
		for _, o := range fragment {
			if first, ok := seen[o.Name]; ok {
				errs = append(errs, fmt.Errorf("%s: CONFIG_%s: %w, first at %s", o.Position(), o.Name, ErrTwice, first.Position()))
				continue
			}
			seen[o.Name] = o
			merged = append(merged, o)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return merged, nil
}

// Format writes options as lines of a .config, without their reasons: reasons may change and the kernel stays.
func Format(options []Option) []byte {
	var b bytes.Buffer
	for _, o := range options {
		if o.Value == "n" {
			fmt.Fprintf(&b, "# CONFIG_%s is not set\n", o.Name)
			continue
		}
		fmt.Fprintf(&b, "CONFIG_%s=%s\n", o.Name, o.Value)
	}
	return b.Bytes()
}
