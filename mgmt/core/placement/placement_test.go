package placement

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const mib = 1 << 20

// newHost has nodes of so many cores of so many threads each, and 1 GiB free on each.
func newHost(nodes, cores, threads int) *Host {
	h := &Host{Overcommit: 4}
	for n := range nodes {
		h.Nodes = append(h.Nodes, Node{n, 1024 * mib})
		for range cores {
			first := len(h.CPUs)
			var siblings []int
			for i := range threads {
				siblings = append(siblings, first+i)
			}
			for _, id := range siblings {
				h.CPUs = append(h.CPUs, CPU{id, n, siblings})
			}
		}
	}
	h.Reserve(nil)
	return h
}

func node(n int) *int { return &n }

// cpus are those of each vCPU of a decision, -1 for one that runs on several or any.
func cpus(d *hostcall.Placed) []int {
	out := slices.Repeat([]int{-1}, d.VCPUs)
	for _, a := range d.Affinity {
		for _, v := range a.VCPUs {
			if len(a.CPUs) == 1 {
				out[v] = a.CPUs[0]
			}
		}
	}
	return out
}

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		name             string
		h                *Host
		asked            []int
		reserved, guests []int
	}{
		{"one CPU", newHost(1, 1, 1), nil, []int{0}, []int{0}},
		{"a small host shares", newHost(1, 3, 2), nil, []int{0, 1}, []int{0, 1, 2, 3, 4, 5}},
		{"a core of four", newHost(1, 4, 2), nil, []int{0, 1}, []int{2, 3, 4, 5, 6, 7}},
		{"asked for", newHost(2, 1, 2), []int{3}, []int{2, 3}, []int{0, 1}},
		{"all asked for", newHost(1, 2, 1), []int{0, 1}, []int{0, 1}, []int{0, 1}},
		{"a CPU that is not there", newHost(1, 2, 1), []int{9}, nil, []int{0, 1}},
		{"no CPU is known", &Host{}, nil, nil, nil},
	} {
		tt.h.Reserve(tt.asked)
		if !slices.Equal(tt.h.Reserved, tt.reserved) || !slices.Equal(tt.h.Guests, tt.guests) {
			t.Errorf("%s: reserved %v, guests %v, want %v and %v", tt.name, tt.h.Reserved, tt.h.Guests, tt.reserved, tt.guests)
		}
	}
}

func TestDecide(t *testing.T) {
	pinnedTo := func(cpus ...int) *hostcall.Placed {
		return &hostcall.Placed{VCPUs: len(cpus), Pinned: true, Affinity: oneByOne(upTo(len(cpus)), cpus)}
	}
	alone := func(exclusive ...int) *hostcall.Placed {
		d := pinnedTo(exclusive...)
		d.Exclusive = exclusive
		return d
	}
	onNode := func(h *Host, n, vcpus int) *hostcall.Placed {
		on := h.on([]int{n}, h.Guests)
		return &hostcall.Placed{VCPUs: vcpus, Nodes: []int{n}, Affinity: []protocol.Affinity{{VCPUs: upTo(vcpus), CPUs: on}}, Emulation: on}
	}
	smt := newHost(2, 4, 2) // CPUs 0-7 and 8-15; 0 and 1 are reserved
	fragmented := newHost(2, 4, 2)
	fragmented.Nodes[1].FreeBytes = 100 * mib
	memoryAlone := newHost(1, 1, 1) // as the lab
	memoryAlone.Nodes = append(memoryAlone.Nodes, Node{1, 4096 * mib})
	for _, tt := range []struct {
		name      string
		h         *Host
		running   []*hostcall.Placed
		w         Wish
		nodes     []int
		cpus      []int
		emulation []int
		exclusive []int
		why       string
	}{
		{"nothing", smt, nil, Wish{VCPUs: 2}, nil, []int{-1, -1}, nil, nil, "Nothing was asked for"},
		{"node", smt, nil, Wish{VCPUs: 2, Node: node(1)}, []int{1}, []int{-1, -1}, []int{8, 9, 10, 11, 12, 13, 14, 15}, nil, "Node 1 was asked for."},
		{"auto takes the emptier node", smt, []*hostcall.Placed{onNode(smt, 1, 3)}, Wish{VCPUs: 2, Auto: true, Memory: 512 * mib}, []int{0}, []int{-1, -1}, []int{2, 3, 4, 5, 6, 7}, nil, "fewest processors"},
		{"auto goes where there is memory", fragmented, nil, Wish{VCPUs: 2, Auto: true, Memory: 512 * mib}, []int{0}, []int{-1, -1}, []int{2, 3, 4, 5, 6, 7}, nil, "Node 0 was chosen: no other has room."},
		{"auto stays with the device", smt, []*hostcall.Placed{onNode(smt, 1, 3)}, Wish{VCPUs: 2, Auto: true, Near: []int{1}}, []int{1}, []int{-1, -1}, []int{8, 9, 10, 11, 12, 13, 14, 15}, nil, "that of a device"},
		{"auto does not take memory alone", memoryAlone, nil, Wish{VCPUs: 1, Auto: true}, []int{0}, []int{-1}, nil, nil, "Node 0 was chosen"},
		{"memory alone", memoryAlone, nil, Wish{VCPUs: 1, Node: node(1)}, []int{1}, []int{-1}, nil, nil, "Node 1"},
		{"pinned", smt, nil, Wish{VCPUs: 3, Pin: true}, nil, []int{2, 3, 4}, []int{5, 6, 7}, nil, "Its other threads run beside them."},
		{"pinned elsewhere than others", smt, []*hostcall.Placed{pinnedTo(2, 4, 6)}, Wish{VCPUs: 2, Pin: true, Node: node(0)}, []int{0}, []int{2, 3}, []int{4, 5, 6, 7}, nil, "Node 0"},
		{"pinned to the emptiest core", smt, []*hostcall.Placed{pinnedTo(2, 3, 4)}, Wish{VCPUs: 2, Pin: true, Node: node(0)}, []int{0}, []int{6, 7}, []int{2, 3, 4, 5}, nil, "Node 0"},
		{"pinned as listed", smt, nil, Wish{VCPUs: 2, CPUs: []int{9, 4}}, nil, []int{9, 4}, []int{2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15}, nil, "that was asked for"},
		{"auto follows the list", smt, nil, Wish{VCPUs: 2, Auto: true, CPUs: []int{9, 10}}, []int{1}, []int{9, 10}, []int{8, 11, 12, 13, 14, 15}, nil, "Node 1"},
		{"pinned on one CPU", newHost(1, 1, 1), nil, Wish{VCPUs: 1, Pin: true}, nil, []int{0}, []int{0}, nil, "there are no others"},
		{"exclusive", smt, nil, Wish{VCPUs: 3, Exclusive: true, Auto: true}, []int{0}, []int{2, 3, 4}, []int{6, 7}, []int{2, 3, 4, 5}, "2 cores that are the guest's alone"},
		{"exclusive beside others", smt, []*hostcall.Placed{alone(2, 3), pinnedTo(4)}, Wish{VCPUs: 2, Exclusive: true, Node: node(0)}, []int{0}, []int{6, 7}, []int{4, 5}, []int{6, 7}, "1 cores"},
		{"exclusive as listed takes the siblings", smt, nil, Wish{VCPUs: 2, Exclusive: true, CPUs: []int{4, 6}}, nil, []int{4, 6}, []int{2, 3}, []int{4, 5, 6, 7}, "alone"},
		{"exclusive spares the last core of others", newHost(2, 2, 1), []*hostcall.Placed{onNode(newHost(2, 2, 1), 1, 1)}, Wish{VCPUs: 2, Exclusive: true}, nil, []int{1, 2}, []int{3}, []int{1, 2}, "alone"},
		{"other threads on another node", newHost(2, 4, 1), []*hostcall.Placed{alone(4, 5)}, Wish{VCPUs: 2, Exclusive: true, Node: node(1)}, []int{1}, []int{6, 7}, []int{1, 2, 3}, []int{6, 7}, "on another node"},
		{"a small host's first CPU is shared", newHost(1, 2, 1), nil, Wish{VCPUs: 1, Exclusive: true}, nil, []int{1}, []int{0}, []int{1}, "alone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Decide(tt.h, tt.running, &tt.w)
			if err != nil {
				t.Fatal(err)
			}
			got, want := []any{d.Nodes, cpus(d), d.Emulation, d.Exclusive}, []any{tt.nodes, tt.cpus, tt.emulation, tt.exclusive}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("nodes, CPUs, emulation and exclusive cores (-want +got):\n%s", diff)
			}
			if !strings.Contains(d.Why, tt.why) {
				t.Errorf("why = %q, want %q", d.Why, tt.why)
			}
		})
	}
}

func upTo(n int) []int {
	var out []int
	for i := range n {
		out = append(out, i)
	}
	return out
}

// Nodes of the guest's go to different nodes of the host's, each with its own cores.
func TestDecideNUMA(t *testing.T) {
	h := newHost(2, 4, 2)
	numa := []protocol.NUMANode{{VCPUs: []int{0, 1}, MemoryBytes: 512 * mib}, {VCPUs: []int{2, 3}, MemoryBytes: 600 * mib}}
	d, err := Decide(h, nil, &Wish{VCPUs: 4, Memory: 1112 * mib, NUMA: numa, Auto: true, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int{{1}, {0}}, d.HostNodes); diff != "" && !cmp.Equal([][]int{{0}, {1}}, d.HostNodes) {
		t.Errorf("host nodes (-want +got):\n%s", diff)
	}
	for i, nodes := range d.HostNodes {
		for _, v := range numa[i].VCPUs {
			if got := h.nodesOf([]int{cpus(d)[v]}); !slices.Equal(got, nodes) {
				t.Errorf("vCPU %d of node %d is on nodes %v, want %v", v, i, got, nodes)
			}
		}
	}
	if len(d.Exclusive) != 4 || len(d.Nodes) != 0 {
		t.Errorf("exclusive %v, nodes %v", d.Exclusive, d.Nodes)
	}
	// Where one node has no room for both, and the other for none, neither is placed.
	h.Nodes[1].FreeBytes = 100 * mib
	if _, err := Decide(h, nil, &Wish{VCPUs: 4, Memory: 1112 * mib, NUMA: numa, Auto: true}); err == nil {
		t.Error("1112 MiB were placed on a node with 1024")
	}
}

func TestRefused(t *testing.T) {
	alone := func(cpus ...int) *hostcall.Placed {
		return &hostcall.Placed{VCPUs: len(cpus), Pinned: true, Affinity: oneByOne(upTo(len(cpus)), cpus), Exclusive: cpus}
	}
	smt := newHost(2, 4, 2)
	for _, tt := range []struct {
		name    string
		h       *Host
		running []*hostcall.Placed
		w       Wish
		code    hostcall.Code
		field   string
		want    string
	}{
		{"memory", smt, nil, Wish{VCPUs: 1, Auto: true, Memory: 2048 * mib}, hostcall.ResourceExhausted, "guest.placement.node",
			"No NUMA node of the host has room for 1 processors and 2048 MiB: node 0 has 3 of 4 cores free, 6 CPUs that guests share and 1024 MiB; node 1 has 4 of 4 cores free, 8 CPUs that guests share and 1024 MiB."},
		{"the device's node is full", smt, []*hostcall.Placed{alone(8, 9, 10, 11, 12, 13)}, Wish{VCPUs: 4, Auto: true, Exclusive: true, Near: []int{1}}, hostcall.ResourceExhausted, "guest.placement.node",
			"The devices' NUMA node 1 of the host does not have room for 4 processors on cores of their own and 0 MiB: node 0 has 3 of 4 cores free"},
		{"cores are in pieces", smt, []*hostcall.Placed{alone(2, 3, 4, 5, 8, 9, 10, 11)}, Wish{VCPUs: 6, Exclusive: true, Auto: true}, hostcall.ResourceExhausted, "guest.placement.node", "node 0 has 1 of 4 cores free"},
		{"too few CPUs to pin to", smt, nil, Wish{VCPUs: 9, Pin: true, Node: node(1)}, hostcall.ResourceExhausted, "guest.placement.cpus", "The host's node 1 has 8 CPUs that guests can be pinned to, too few for 9"},
		{"number of CPUs", smt, nil, Wish{VCPUs: 2, CPUs: []int{4}}, hostcall.InvalidArgument, "guest.placement.cpus", "1 CPUs for 2 processors"},
		{"CPU twice", smt, nil, Wish{VCPUs: 2, CPUs: []int{4, 4}}, hostcall.InvalidArgument, "guest.placement.cpus", "CPU 4 stands there twice"},
		{"no such CPU", smt, nil, Wish{VCPUs: 1, CPUs: []int{16}}, hostcall.FailedPrecondition, "guest.placement.cpus", "no CPU 16 that is online: it has 0-15"},
		{"the control domain's", smt, nil, Wish{VCPUs: 1, CPUs: []int{1}}, hostcall.FailedPrecondition, "guest.placement.cpus", "CPU 1 is the control domain's: choose from 2-15."},
		{"the control domain's on a small host", newHost(1, 2, 1), nil, Wish{VCPUs: 1, CPUs: []int{0}, Exclusive: true}, hostcall.FailedPrecondition, "guest.placement.cpus", "CPU 0 is the control domain's: choose from 1."},
		{"another guest's", smt, []*hostcall.Placed{alone(4, 5)}, Wish{VCPUs: 1, CPUs: []int{4}}, hostcall.ResourceExhausted, "guest.placement.cpus", "CPU 4 is another guest's alone: 2-3,6-15 are shared."},
		{"listed CPUs of two nodes", smt, nil, Wish{VCPUs: 2, Auto: true, CPUs: []int{4, 9}}, hostcall.ResourceExhausted, "guest.placement.node", "No NUMA node"},
		{"another guest is pinned to the sibling", smt, []*hostcall.Placed{{VCPUs: 1, Pinned: true, Affinity: oneByOne([]int{0}, []int{5})}}, Wish{VCPUs: 1, CPUs: []int{4}, Exclusive: true}, hostcall.ResourceExhausted, "guest.placement.exclusiveCores", "CPUs 4-5"},
		{"the last core of guests", newHost(1, 1, 1), nil, Wish{VCPUs: 1, Exclusive: true}, hostcall.ResourceExhausted, "guest.placement.cpus", "too few cores"},
		{"the last core of guests, listed", newHost(1, 4, 1), []*hostcall.Placed{alone(1, 2)}, Wish{VCPUs: 1, CPUs: []int{3}, Exclusive: true}, hostcall.ResourceExhausted, "guest.placement.exclusiveCores", "need one of the CPUs 1-3"},
		{"over the limit", newHost(1, 2, 1), []*hostcall.Placed{{VCPUs: 6}}, Wish{VCPUs: 3}, hostcall.ResourceExhausted, "guest.vcpus", "Guests would have 9 processors on the 2 CPUs that they share, 4 for each are the limit (guestCPUs.overcommit of the host's configuration): that is 8, of which guests that run have 6."},
		{"a core less would break the limit", newHost(1, 2, 1), []*hostcall.Placed{{VCPUs: 6}}, Wish{VCPUs: 1, Exclusive: true}, hostcall.ResourceExhausted, "guest.vcpus", "6 processors on the 1 CPUs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decide(tt.h, tt.running, &tt.w)
			var e *hostcall.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Field != tt.field || !strings.Contains(e.Message, tt.want) {
				t.Errorf("Decide = %+v, want %s of %s with %q", err, tt.code, tt.field, tt.want)
			}
		})
	}
}

// Exclusive cores do not count for the limit of those that are shared.
func TestExclusiveIsNotShared(t *testing.T) {
	h := newHost(1, 4, 1)
	h.Overcommit = 1
	d, err := Decide(h, nil, &Wish{VCPUs: 2, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decide(h, []*hostcall.Placed{d}, &Wish{VCPUs: 1}); err != nil {
		t.Errorf("one processor on one shared CPU: %v", err)
	}
	if _, err := Decide(h, []*hostcall.Placed{d}, &Wish{VCPUs: 2}); err == nil {
		t.Error("two processors on one shared CPU were let in")
	}
}
