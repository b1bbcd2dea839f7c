package config

import (
	"fmt"
	"sort"
	"strings"
)

// FieldError is one thing wrong with a document.
type FieldError struct {
	// Line and Column count from 1; they are 0 where they are not known.
	Line, Column int
	// Path is the field, "network.static.address" or "disks[1].serial"; it is
	// empty for what concerns the whole document.
	Path string
	// Problem says what is wrong and what would be right.
	Problem string
}

// Error is "line 4, column 12: hostname: …".
func (e FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ", column %d", e.Column)
		}
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Errors is everything wrong with a document, by line. It is what Parse
// returns.
type Errors []FieldError

// Error has a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each FieldError to errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, f := range e {
		errs[i] = f
	}
	return errs
}

func (e Errors) sort() {
	sort.SliceStable(e, func(i, j int) bool {
		if e[i].Line != e[j].Line {
			return e[i].Line < e[j].Line
		}
		return e[i].Column < e[j].Column
	})
}
