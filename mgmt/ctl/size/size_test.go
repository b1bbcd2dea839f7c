package size

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		fail string
	}{
		{in: "0", want: 0},
		{in: "512", want: 512},
		{in: "512B", want: 512},
		{in: "512MiB", want: 512 << 20},
		{in: "512 MiB", want: 512 << 20},
		{in: "4GiB", want: 4 << 30},
		{in: "1G", want: 1 << 30},
		{in: "1g", want: 1 << 30},
		{in: "1.5gib", want: 3 << 29},
		{in: "16T", want: 16 << 40},
		{in: "9223372036854775807", want: 1<<63 - 1},
		{in: "", fail: "write a number"},
		{in: "MiB", fail: "write a number"},
		{in: "-1", fail: "write a number"},
		{in: "1.", fail: "write a number"},
		{in: ".5G", fail: "write a number"},
		{in: "1.2.3G", fail: "write a number"},
		{in: "0x10", fail: "unknown"},
		{in: "1e3", fail: "unknown"},
		{in: "4GB", fail: "ambiguous"},
		{in: "1X", fail: "unknown"},
		{in: "0.3", fail: "whole number"},
		{in: "9223372036854775808", fail: "more than"},
		{in: "8388608T", fail: "more than"},
		{in: strings.Repeat("9", 100), fail: "write a number"},
	} {
		got, err := Parse(c.in)
		if c.fail == "" {
			if err != nil || got != c.want {
				t.Errorf("Parse(%q) = %d, %v, want %d", c.in, got, err, c.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.fail) || got != 0 {
			t.Errorf("Parse(%q) = %d, %v, want 0 and an error with %q", c.in, got, err, c.fail)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0:            "0B",
		1023:         "1023B",
		1024:         "1KiB",
		512 << 20:    "512MiB",
		3 << 29:      "1.5GiB",
		4 << 30:      "4GiB",
		16 << 40:     "16TiB",
		1<<63 - 1:    "8388608.0TiB",
		100<<20 + 17: "100.0MiB",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"512MiB", "1.5G", "4GB", "", "0.0000000000001T", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if n != 0 {
				t.Errorf("Parse(%q) = %d with error %v", s, n, err)
			}
			return
		}
		if n < 0 {
			t.Fatalf("Parse(%q) = %d", s, n)
		}
		out := Format(n)
		if strings.Contains(out, ".") {
			return
		}
		if back, err := Parse(out); err != nil || back != n {
			t.Errorf("Parse(Format(%d)) = %d, %v", n, back, err)
		}
	})
}
