// Package figure turns what was measured into figures that compare: medians,
// the ratio to a peer, and how far single rounds are from one another.
package figure

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Ours is the Side of Ashlar.
const Ours = "ashlar"

// A Better says which direction is good.
type Better string

// Directions.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// A Sample is one measurement.
type Sample struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Better Better  `json:"better"`
	Side   string  `json:"side"` // Ours or the name of a peer
	Round  int     `json:"round"`
	Value  float64 `json:"value"`
}

// A Figure is an entry of bench.json. What has no peer has no Ratio.
type Figure struct {
	Name     string   `json:"name"`
	Unit     string   `json:"unit"`
	Better   Better   `json:"better"`
	Ours     float64  `json:"ours"` // the median
	Peer     *float64 `json:"peer,omitempty"`
	PeerName string   `json:"peer_name,omitempty"`
	Ratio    *float64 `json:"ratio,omitempty"` // Ours / Peer
	// Spread is the distance between the highest and the lowest round, as a part of
	// the median: of the rounds' ratios where there is a peer, of Ours else.
	Spread float64 `json:"spread"`
	Rounds int     `json:"rounds"`
}

// Figures compares the samples of each name with those of each peer, in the
// order in which the names came first. A name without samples of Ours is left out, and an error.
func Figures(samples []Sample) ([]Figure, error) {
	var out []Figure
	var errs []error
	for _, name := range distinct(samples, func(s Sample) string { return s.Name }) {
		of := only(samples, func(s Sample) bool { return s.Name == name })
		ours := only(of, func(s Sample) bool { return s.Side == Ours })
		if len(ours) == 0 {
			errs = append(errs, fmt.Errorf("%s: measured for %s only", name, of[0].Side))
			continue
		}
		f := Figure{Name: name, Unit: ours[0].Unit, Better: ours[0].Better, Ours: median(values(ours)),
			Spread: spread(values(ours)), Rounds: len(ours)}
		peers := slices.DeleteFunc(distinct(of, func(s Sample) string { return s.Side }), func(s string) bool { return s == Ours })
		if len(peers) == 0 {
			out = append(out, f)
		}
		for _, peer := range peers {
			out = append(out, f.against(peer, ours, only(of, func(s Sample) bool { return s.Side == peer })))
		}
	}
	return out, errors.Join(errs...)
}

// against is f compared with a peer. A peer of 0 has no ratio.
func (f Figure) against(name string, ours, peer []Sample) Figure {
	m := median(values(peer))
	f.Peer, f.PeerName = &m, name
	if m == 0 {
		return f
	}
	r := f.Ours / m
	f.Ratio = &r
	var ratios []float64
	for _, o := range ours {
		i := slices.IndexFunc(peer, func(p Sample) bool { return p.Round == o.Round })
		if i >= 0 && peer[i].Value != 0 {
			ratios = append(ratios, o.Value/peer[i].Value)
		}
	}
	f.Spread = spread(ratios)
	return f
}

func only(samples []Sample, keep func(Sample) bool) []Sample {
	var out []Sample
	for _, s := range samples {
		if keep(s) {
			out = append(out, s)
		}
	}
	return out
}

func distinct(samples []Sample, key func(Sample) string) []string {
	var out []string
	for _, s := range samples {
		if !slices.Contains(out, key(s)) {
			out = append(out, key(s))
		}
	}
	return out
}

func values(samples []Sample) []float64 {
	var out []float64
	for _, s := range samples {
		out = append(out, s.Value)
	}
	return out
}

// median is 0 for no values.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func spread(v []float64) float64 {
	m := median(v)
	if m == 0 {
		return 0
	}
	return (slices.Max(v) - slices.Min(v)) / m
}

// Table writes figures for a person. A mark shows what is worse than the peer.
func Table(w io.Writer, figures []Figure) {
	fmt.Fprintf(w, "%-56s %-7s %12s %12s  %-12s %7s %7s\n", "figure", "unit", "ours", "peer", "peer is", "ratio", "spread")
	for _, f := range figures {
		fmt.Fprintf(w, "%-56s %-7s %12.2f", f.Name, f.Unit, f.Ours)
		if f.Peer != nil {
			fmt.Fprintf(w, " %12.2f  %-12s", *f.Peer, f.PeerName)
		} else {
			fmt.Fprintf(w, " %12s  %-12s", "", "")
		}
		switch {
		case f.Ratio != nil:
			fmt.Fprintf(w, " %7.2f", *f.Ratio)
		default:
			fmt.Fprintf(w, " %7s", "")
		}
		if f.Rounds > 1 {
			fmt.Fprintf(w, " %6.0f%%", f.Spread*100)
		} else {
			fmt.Fprintf(w, " %7s", "")
		}
		fmt.Fprintln(w, mark(f))
	}
}

func mark(f Figure) string {
	if f.Ratio == nil || f.Better == Lower && *f.Ratio <= 1 || f.Better == Higher && *f.Ratio >= 1 {
		return ""
	}
	return " worse"
}
