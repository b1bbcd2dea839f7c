package console

import "bytes"

// Sizes for going on after a broken stream.
const (
	// keep is how much of the output is remembered to find the place again.
	keep = 4 << 10
	// patience is how much of a replay is looked at before giving up.
	patience = 1 << 20
)

// A splicer leaves out of a replay what has been shown before a break.
type splicer struct {
	shown   []byte // the end of what has been shown
	pending []byte // replay in which the place has not been found
	looking bool
}

// reconnect says that a replay follows.
func (s *splicer) reconnect() {
	s.looking, s.pending = len(s.shown) > 0, nil
}

// take returns what of p is new. It may hold p back until more comes or flush
// is called.
func (s *splicer) take(p []byte) []byte {
	if s.looking {
		s.pending = append(s.pending, p...)
		// The first place: where there are several, showing some of the output
		// twice is better than leaving some out.
		i := bytes.Index(s.pending, s.shown)
		switch {
		case i >= 0:
			p = s.pending[i+len(s.shown):]
		case len(s.pending) < patience:
			return nil
		default:
			p = s.pending
		}
		s.looking, s.pending = false, nil
	}
	s.remember(p)
	return p
}

// flush gives up looking: what was held back is new.
func (s *splicer) flush() []byte {
	p := s.pending
	s.looking, s.pending = false, nil
	s.remember(p)
	return p
}

// remember keeps the end of what has been shown.
func (s *splicer) remember(p []byte) {
	s.shown = append(s.shown, p...)
	if len(s.shown) > keep {
		s.shown = bytes.Clone(s.shown[len(s.shown)-keep:])
	}
}
