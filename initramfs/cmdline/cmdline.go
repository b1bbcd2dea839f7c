// Package cmdline reads the words on the kernel's command line that are meant
// for init (Documentation/admin-guide/kernel-parameters.rst; quoting as in the
// kernel's next_arg).
package cmdline

import "strings"

// Options are init's words. All begin with "ashlar.".
type Options struct {
	// Rescue is the terminal for a root shell ("ttyS1"), "" for none.
	Rescue string
	// NoConfig says not to wait for a configuration partition.
	NoConfig bool
	// Verbose leaves the kernel's messages on the console.
	Verbose bool
	// Unknown are words for init that it does not know.
	Unknown []string
}

// Parse reads a command line. It takes what it understands.
func Parse(line string) Options {
	var o Options
	for _, word := range words(line) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "ashlar.rescue" && terminal(value):
			o.Rescue = value
		case key == "ashlar.config" && value == "none":
			o.NoConfig = true
		case key == "debug" || key == "ignore_loglevel" || key == "loglevel":
			o.Verbose = true
		case strings.HasPrefix(key, "ashlar."):
			o.Unknown = append(o.Unknown, word)
		}
	}
	return o
}

// terminal reports whether s names a terminal in /dev.
func terminal(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return strings.HasPrefix(s, "tty") || strings.HasPrefix(s, "hvc")
}

// words splits at blanks outside of double quotes; what follows "--" is for
// other programs.
func words(line string) []string {
	var list []string
	var word strings.Builder
	quoted := false
	for _, r := range line + " " {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if word.String() == "--" {
				return list
			}
			if word.Len() > 0 {
				list = append(list, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return list
}
