package render

import (
	"fmt"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// numaNodes adds a line for each node of a virtual machine.
func numaNodes(r *Rows, nodes []*ashlarv1.NumaNode) {
	for i, n := range nodes {
		words := []string{counted("CPU", n.GetCpus()), size.Format(n.GetMemoryBytes())}
		if len(n.GetHostNodes()) > 0 {
			words = append(words, "on the host's "+counted("node", n.GetHostNodes()))
		}
		if len(n.GetDistances()) > 0 {
			words = append(words, "distances "+strings.Trim(fmt.Sprint(n.GetDistances()), "[]"))
		}
		r.Add(fmt.Sprintf("NUMA node %d:", i), strings.Join(nonEmpty(words...), ", "))
	}
}

// counted is numbers in words: `CPU 3`, `CPUs 0-1 4`; "" for none.
func counted(what string, numbers []int32) string {
	switch len(numbers) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s %d", what, numbers[0])
	}
	return what + "s " + Ranges(numbers)
}

// Ranges is numbers in short: `0-3 8`.
func Ranges(numbers []int32) string {
	var out []string
	for i := 0; i < len(numbers); {
		end := i + 1
		for end < len(numbers) && numbers[end] == numbers[end-1]+1 {
			end++
		}
		if word := fmt.Sprint(numbers[i]); end-i == 1 {
			out = append(out, word)
		} else {
			out = append(out, fmt.Sprintf("%s-%d", word, numbers[end-1]))
		}
		i = end
	}
	return strings.Join(out, " ")
}
