package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// Counters is a table with a line for each counter: those of all processors together,
// or, with each, of every one, then those of devices.
func Counters(c *ashlarv1.VirtualMachineCounters, each bool) *Rows {
	r := &Rows{Header: []string{"COUNTER", "VALUE"}}
	sum := map[string]int64{}
	for i, cpu := range c.GetCpus() {
		for name, n := range cpu.GetCounters() {
			sum[name] += n
			if each {
				sum[fmt.Sprintf("%s[%d]", name, i)] = n
			}
		}
	}
	r.addCounters("cpu.", sum)
	r.addCounters("", c.GetDevices())
	for _, name := range slices.SortedFunc(maps.Keys(c.GetLatencies()), natural) {
		if text := latency(c.GetLatencies()[name].GetCounts()); text != "" {
			r.Add(name+" took", text)
		}
	}
	return r
}

// latency says how long most requests took: less than what. The last of all buckets has
// no end.
func latency(counts []int64) string {
	var all int64
	for _, n := range counts {
		all += n
	}
	if all == 0 {
		return ""
	}
	var words []string
	for _, part := range []struct {
		what    string
		percent float64
	}{{"half", 50}, {"99%", 99}, {"all", 100}} {
		sum, i := int64(0), 0
		for ; i < len(counts)-1; i++ {
			if sum += counts[i]; float64(sum) >= float64(all)*part.percent/100 {
				break
			}
		}
		word := "< " + (time.Microsecond << i).String()
		if i >= lastBucket {
			word = ">= " + (time.Microsecond << (lastBucket - 1)).String()
		}
		words = append(words, part.what+" "+word)
	}
	return strings.Join(words, ", ")
}

// lastBucket is the place of the bucket of a LatencyHistogram that has no end.
const lastBucket = 25

// addCounters adds them by name.
func (r *Rows) addCounters(prefix string, counters map[string]int64) {
	names := slices.SortedFunc(maps.Keys(counters), natural)
	for _, name := range names {
		r.Add(prefix+name, strconv.FormatInt(counters[name], 10))
	}
}

// natural compares names so that disk2 comes before disk10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, ra := digits(a)
		nb, rb := digits(b)
		switch {
		case na == "" || nb == "":
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
		case na != nb:
			return cmp.Or(cmp.Compare(len(na), len(nb)), strings.Compare(na, nb))
		default:
			a, b = ra, rb
		}
	}
	return cmp.Compare(len(a), len(b))
}

// digits splits the number off that s starts with.
func digits(s string) (number, rest string) {
	rest = strings.TrimLeft(s, "0123456789")
	return s[:len(s)-len(rest)], rest
}
