package console

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Private modes (DECSET, as xterm's control sequences name them) that a guest
// may leave set and that would make the user's shell unusable: mouse reports,
// the alternate screen, focus reports, bracketed paste, application keys.
var modesToReset = []int{1, 9, 47, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004}

// cursorMode is DECTCEM: the cursor is seen while it is set.
const cursorMode = 25

// maxParameters bounds what is kept of a control sequence.
const maxParameters = 64

// modes follows the guest's output and knows what to undo at the end.
type modes struct {
	state  int
	params []byte
	on     map[int]bool
	hidden bool
}

// States of the parser: outside, after ESC, after `ESC [`, after `ESC [ ?`.
const (
	outside = iota
	escape
	bracket
	private
)

// follow looks at output.
func (m *modes) follow(p []byte) {
	for _, c := range p {
		m.step(c)
	}
}

// step takes one byte of output.
func (m *modes) step(c byte) {
	switch {
	case c == 0x1b:
		m.state, m.params = escape, m.params[:0]
	case m.state == escape && c == '[':
		m.state = bracket
	case m.state == escape && c == 'c': // RIS resets everything
		m.state, m.on, m.hidden = outside, nil, false
	case m.state == bracket && c == '?':
		m.state = private
	case m.state == private && (c >= '0' && c <= '9' || c == ';') && len(m.params) < maxParameters:
		m.params = append(m.params, c)
	case m.state == private && (c == 'h' || c == 'l'):
		m.set(c == 'h')
		m.state = outside
	default:
		m.state = outside
	}
}

// set notes the modes of a sequence that has ended.
func (m *modes) set(on bool) {
	for f := range strings.SplitSeq(string(m.params), ";") {
		n, err := strconv.Atoi(f)
		switch {
		case err != nil:
		case n == cursorMode:
			m.hidden = !on
		case !slices.Contains(modesToReset, n):
		case on:
			if m.on == nil {
				m.on = map[int]bool{}
			}
			m.on[n] = true
		default:
			delete(m.on, n)
		}
	}
}

// restore is what brings the terminal back: the modes reset, the cursor seen,
// plain colours, numeric keypad.
func (m *modes) restore() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(m.on)) {
		b.WriteString("\x1b[?" + strconv.Itoa(n) + "l")
	}
	if m.hidden {
		b.WriteString("\x1b[?25h")
	}
	b.WriteString("\x1b[0m\x1b>")
	return b.String()
}
