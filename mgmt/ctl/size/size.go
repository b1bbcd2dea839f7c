// Package size reads and writes amounts of bytes as people do: 512MiB, 4GiB,
// 1.5G. Units are powers of 1024 as IEC 80000-13 names them; the letter alone
// (K, M, G, T) means the same. Decimal units (MB, GB) are refused because half
// of their users mean the other thing.
package size

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Units in bytes.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
)

// maxDigits keeps the arithmetic small: no amount of bytes needs more.
const maxDigits = 40

var units = []struct {
	name  string
	bytes int64
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// errForm is what every malformed size is told.
var errForm = errors.New("write a number and a unit, such as 512MiB, 4GiB or 1G")

// Parse reads a size: a decimal number, which may have a fraction, and a unit
// (B, K, KiB, M, MiB, G, GiB, T, TiB in any case; none means bytes). It must
// come to a whole number of bytes that an int64 holds.
func Parse(s string) (int64, error) {
	n := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if n < 0 {
		n = len(s)
	}
	number, unit := s[:n], strings.TrimPrefix(s[n:], " ")
	if !wellFormed(number) {
		return 0, fmt.Errorf("size %q: %w", s, errForm)
	}
	factor, err := unitBytes(unit)
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", s, err)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("size %q: %w", s, errForm)
	}
	r.Mul(r, new(big.Rat).SetInt64(factor))
	if !r.IsInt() {
		return 0, fmt.Errorf("size %q: not a whole number of bytes", s)
	}
	if !r.Num().IsInt64() {
		return 0, fmt.Errorf("size %q: more than %s", s, Format(math.MaxInt64))
	}
	return r.Num().Int64(), nil
}

// wellFormed tells whether s is digits with at most one point between them.
func wellFormed(s string) bool {
	whole, fraction, point := strings.Cut(s, ".")
	if len(s) > maxDigits || whole == "" || (point && fraction == "") {
		return false
	}
	return !strings.Contains(fraction, ".")
}

// unitBytes returns the bytes in a unit.
func unitBytes(unit string) (int64, error) {
	switch strings.ToLower(unit) {
	case "", "b":
		return 1, nil
	case "kb", "mb", "gb", "tb":
		letter := strings.ToUpper(unit[:1])
		return 0, fmt.Errorf("unit %s is ambiguous: write %s or %siB for powers of 1024", unit, letter, letter)
	}
	for _, u := range units {
		if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, u.name[:1]) {
			return u.bytes, nil
		}
	}
	return 0, fmt.Errorf("unit %q is unknown: %w", unit, errForm)
}

// Format writes n bytes in the largest unit that keeps it at 1 or more, with
// one decimal where it does not come out even. What comes out even is read by
// Parse as the same amount.
func Format(n int64) string {
	for _, u := range units {
		switch {
		case n < u.bytes:
		case n%u.bytes == 0:
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		default:
			return strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
