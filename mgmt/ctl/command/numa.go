package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

const numaLong = `--numa tells the guest of NUMA nodes and says which of the host's their memory is
taken from, and no other; their processors run on the CPUs of these. --numa
nodes=N[,host=A+B+…] shares processors and memory out to N nodes as evenly as they go,
each on one of the host's where these are named; of the processors those that may come
(--cpus N,max=M) are shared out, too. Memory that is plugged in is of the last node. --numa cpus=LIST,memory=SIZE[,host=LIST]
[,distances=LIST], given once for each node, says it exactly: a LIST has + between
numbers or ranges (0-3+8), distances are those to each node (10+20). The host's
nodes are shown by ` + "`ashlarctl host topology`" + `.`

// ParseNUMA reads the values of --numa for a machine of so many processors and so much
// memory, whose shares are multiples of unit bytes.
func ParseNUMA(values []string, cpus int32, memory, unit int64) ([]*ashlarv1.NumaNode, error) {
	var nodes []*ashlarv1.NumaNode
	for _, s := range values {
		first, options, err := options(s, "nodes", "cpus", "memory", "host", "distances")
		if err != nil {
			return nil, fmt.Errorf("node %q: %w", s, err)
		}
		if first != "" && (len(values) > 1 || options["cpus"] != "" || options["memory"] != "" || options["distances"] != "") {
			return nil, fmt.Errorf("node %q: nodes=%s stands alone, or with host: it says all of the others", s, first)
		}
		if first != "" {
			return evenNodes(s, first, options["host"], cpus, memory, unit)
		}
		n, err := parseNode(options)
		if err != nil {
			return nil, fmt.Errorf("node %q: %w", s, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// parseNode reads one node that is said exactly.
func parseNode(options map[string]string) (*ashlarv1.NumaNode, error) {
	n := &ashlarv1.NumaNode{}
	for key, to := range map[string]*[]int32{"cpus": &n.Cpus, "host": &n.HostNodes, "distances": &n.Distances} {
		v, ok := options[key]
		if !ok {
			continue
		}
		var err error
		if *to, err = parseNumbers(v); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if options["memory"] == "" {
		return nil, errors.New("say how much memory it has: memory=1GiB")
	}
	var err error
	n.MemoryBytes, err = size.Parse(options["memory"])
	return n, err
}

// evenNodes shares processors and memory out to count nodes: the first ones have what is
// left over.
func evenNodes(s, count, host string, cpus int32, memory, unit int64) ([]*ashlarv1.NumaNode, error) {
	n, err := strconv.ParseUint(count, 10, 8)
	if err != nil || n == 0 || int32(n) > cpus {
		return nil, fmt.Errorf("node %q: nodes %q: want a number from 1 on, and no more than processors: %d", s, count, cpus)
	}
	var hosts []int32
	if host != "" {
		if hosts, err = parseNumbers(host); err != nil {
			return nil, fmt.Errorf("node %q: host: %w", s, err)
		}
		if len(hosts) != int(n) {
			return nil, fmt.Errorf("node %q: %d nodes of the host for %d nodes: name one for each", s, len(hosts), n)
		}
	}
	var nodes []*ashlarv1.NumaNode
	next, units := int32(0), memory/unit
	for i := range int64(n) {
		node := &ashlarv1.NumaNode{MemoryBytes: share(units, int64(n), i) * unit}
		for range share(int64(cpus), int64(n), i) {
			node.Cpus = append(node.Cpus, next)
			next++
		}
		if hosts != nil {
			node.HostNodes = hosts[i : i+1]
		}
		nodes = append(nodes, node)
	}
	// What is no multiple is for the host to refuse.
	nodes[0].MemoryBytes += memory - units*unit
	return nodes, nil
}

// share is how many of all number i of n gets.
func share(all, n, i int64) int64 {
	if i < all%n {
		return all/n + 1
	}
	return all / n
}

// parseNumbers reads numbers and ranges with + between: 0-3+8.
func parseNumbers(s string) ([]int32, error) {
	const most = 1024
	var out []int32
	for part := range strings.SplitSeq(s, "+") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 10)
		to, err2 := strconv.ParseUint(last, 10, 10)
		if err != nil || err2 != nil || to < from || len(out) > most {
			return nil, fmt.Errorf("%q: want numbers or ranges below %d with + between: 0-3+8", s, most)
		}
		for n := from; n <= to; n++ {
			out = append(out, int32(n))
		}
	}
	return out, nil
}

// poolPages are the sizes of pages in bytes that shares of memory are multiples of.
func poolPages(b *ashlarv1.MemoryBacking) int64 {
	if b.GetPages() == ashlarv1.MemoryBacking_PAGES_1GIB {
		return 1 << 30
	}
	return 2 << 20
}
