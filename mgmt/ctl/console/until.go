package console

import (
	"bytes"
	"regexp"
)

// window is how much of the output a pattern is looked for in: it must fit
// whole into that many bytes.
const window = 64 << 10

// escapes are control sequences and carriage returns, which a pattern should
// not have to know of.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|\r`)

// A matcher looks for a pattern in a stream of output.
type matcher struct {
	re   *regexp.Regexp
	tail []byte
}

// match takes more output and tells whether the pattern has appeared.
func (m *matcher) match(p []byte) bool {
	m.tail = append(m.tail, p...)
	if len(m.tail) > 2*window {
		m.tail = bytes.Clone(m.tail[len(m.tail)-window:])
	}
	return m.re.Match(escapes.ReplaceAll(m.tail, nil))
}
