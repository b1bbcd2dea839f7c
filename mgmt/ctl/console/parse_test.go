package console

import (
	"bytes"
	"regexp"
	"testing"
)

func TestModes(t *testing.T) {
	const end = "\x1b[0m\x1b>"
	for _, c := range []struct{ name, out, want string }{
		{"nothing", "login: ", end},
		{"alternate screen", "\x1b[?1049h\x1b[2J", "\x1b[?1049l" + end},
		{"left again", "\x1b[?1049hx\x1b[?1049l", end},
		{"several in one", "\x1b[?1000;1006;25l\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l\x1b[?25h" + end},
		{"cursor", "\x1b[?25l", "\x1b[?25h" + end},
		{"reset", "\x1b[?25l\x1b[?2004h\x1bc", end},
		{"not private", "\x1b[1049h\x1b[4h", end},
		{"unknown mode", "\x1b[?7777h", end},
		{"cut short", "\x1b[?10", end},
		{"broken off", "\x1b[?10\x1b[?1049h", "\x1b[?1049l" + end},
	} {
		t.Run(c.name, func(t *testing.T) {
			var whole, bytewise modes
			whole.follow([]byte(c.out))
			for i := range len(c.out) {
				bytewise.follow([]byte{c.out[i]})
			}
			if got := whole.restore(); got != c.want {
				t.Errorf("restore() = %q, want %q", got, c.want)
			}
			if got := bytewise.restore(); got != c.want {
				t.Errorf("restore() byte by byte = %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzModes(f *testing.F) {
	for _, s := range []string{"\x1b[?1049h", "\x1b[?25l\x1bc", "\x1b[?;;;h", "\x1b[?99999999999999999999h"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m modes
		m.follow(b)
		first := m.restore()
		// What restore prints must leave nothing to restore.
		m.follow([]byte(first))
		if again := m.restore(); again != "\x1b[0m\x1b>" {
			t.Errorf("after %q and %q: %q", b, first, again)
		}
		if len(m.params) > maxParameters {
			t.Errorf("%d bytes of parameters kept", len(m.params))
		}
	})
}

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		re   string
		out  []string
		want int // index of the piece that matches, -1 none
	}{
		{"login: $", []string{"boot\r\n", "host lo", "gin: "}, 2},
		{"login:", []string{"\x1b[1;32mlog\x1b[0min:"}, 0},
		{"(?m)^ok$", []string{"not ok\r\n", "ok\r\n"}, 1},
		{"never", []string{"a", "b"}, -1},
	} {
		m := &matcher{re: regexp.MustCompile(c.re)}
		got := -1
		for i, p := range c.out {
			if m.match([]byte(p)) {
				got = i
				break
			}
		}
		if got != c.want {
			t.Errorf("%q in %q: piece %d, want %d", c.re, c.out, got, c.want)
		}
	}
}

func TestMatcherForgets(t *testing.T) {
	m := &matcher{re: regexp.MustCompile("never")}
	for range 100 {
		m.match(make([]byte, 10<<10))
	}
	if len(m.tail) > 2*window {
		t.Errorf("%d bytes kept, want at most %d", len(m.tail), 2*window)
	}
}

func TestSplicer(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []string
		replay []string
		want   string // what is shown of the replay
	}{
		{"all new", nil, []string{"abc"}, "abc"},
		{"nothing new", []string{"abc"}, []string{"abc"}, ""},
		{"more", []string{"one ", "two "}, []string{"one two three"}, "three"},
		{"replay starts later", []string{"one ", "two "}, []string{"one two ", "three"}, "three"},
		{"in pieces", []string{"one two "}, []string{"on", "e tw", "o th", "ree"}, "three"},
		{"another guest", []string{"one two "}, []string{"booting"}, "booting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s splicer
			for _, p := range c.before {
				if got := s.take([]byte(p)); string(got) != p {
					t.Fatalf("take(%q) = %q", p, got)
				}
			}
			s.reconnect()
			var got []byte
			for _, p := range c.replay {
				got = append(got, s.take([]byte(p))...)
			}
			got = append(got, s.flush()...)
			if string(got) != c.want {
				t.Errorf("shown = %q, want %q", got, c.want)
			}
		})
	}
}

// FuzzSplicer cuts an output anywhere, breaks it, and replays all of it in
// pieces of any size: nothing may be missing, and nothing shown twice unless the
// guest itself repeats what it printed last.
func FuzzSplicer(f *testing.F) {
	f.Add([]byte("line one\nline two\nline three\n"), uint(10), uint(3))
	f.Add([]byte("unique 1234567890"), uint(17), uint(1))
	f.Fuzz(func(t *testing.T, out []byte, cut, step uint) {
		cut, step = min(cut, uint(len(out))), max(step%4096, 1)
		var s splicer
		got := append([]byte{}, s.take(bytes.Clone(out[:cut]))...)
		s.reconnect()
		for i := uint(0); i < uint(len(out)); i += step {
			got = append(got, s.take(bytes.Clone(out[i:min(i+step, uint(len(out)))]))...)
		}
		got = append(got, s.flush()...)
		if !bytes.HasPrefix(got, out[:cut]) || !bytes.HasSuffix(got, out[cut:]) {
			t.Errorf("shown = %q, which lacks something of %q", got, out)
		}
		tail := out[max(0, int(cut)-keep):cut]
		if unique := bytes.Index(out, tail) == bytes.LastIndex(out, tail); unique && !bytes.Equal(got, out) {
			t.Errorf("shown = %q, want %q", got, out)
		}
	})
}
