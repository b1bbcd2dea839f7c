package render

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestRows(t *testing.T) {
	r := &Rows{Header: []string{"A", "B"}}
	r.Add("long cell", "")
	r.Add("x", "bell \a and \x1b[31mred\u009b")
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := "A          B\nlong cell\nx          bell ? and ?[31mred?\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("Write() (-want +got):\n%s", d)
	}
}

func TestYAMLKeepsStrings(t *testing.T) {
	vm := &ashlarv1.VirtualMachine{Name: "yes", Uid: "1e3", Boot: &ashlarv1.Boot{Cmdline: "a: b # c", Kernel: "images/k"}}
	vm.NetworkInterfaces = []*ashlarv1.NetworkInterface{{MacAddress: "02:00:00:00:00:01"}}
	var b bytes.Buffer
	if err := Message(&b, YAML, vm, nil); err != nil {
		t.Fatal(err)
	}
	want := `name: "yes"
uid: "1e3"
boot:
  kernel: images/k
  cmdline: "a: b # c"
networkInterfaces:
  - macAddress: "02:00:00:00:00:01"
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("YAML (-want +got):\n%s", d)
	}
}

func TestEmptyLists(t *testing.T) {
	for f, want := range map[Format]string{JSON: "[]\n", YAML: "[]\n", Table: ""} {
		var b bytes.Buffer
		if err := List(&b, f, []*ashlarv1.Image{}, func() *Rows { return &Rows{} }); err != nil || b.String() != want {
			t.Errorf("%s: List() of nothing = %q, %v, want %q", f, b.String(), err, want)
		}
	}
}

func TestJSONIsStable(t *testing.T) {
	op := &ashlarv1.Operation{Name: "operations/1", Error: &ashlarv1.OperationError{Code: "ABORTED", Message: "<x>"}}
	want := "{\"name\":\"operations/1\",\"error\":{\"code\":\"ABORTED\",\"message\":\"<x>\"}}\n"
	for range 10 {
		var b bytes.Buffer
		if err := Line(&b, JSON, op); err != nil || b.String() != want {
			t.Fatalf("Line() = %q, %v, want %q", b.String(), err, want)
		}
	}
}

func TestStates(t *testing.T) {
	img := &ashlarv1.Image{State: ashlarv1.Image_STATE_UPLOADING, SizeBytes: 1 << 40, UploadedBytes: 1 << 39}
	if got := imageState(img); got != "uploading (50%)" {
		t.Errorf("imageState() = %q", got)
	}
	vm := &ashlarv1.VirtualMachine{State: ashlarv1.VirtualMachine_STATE_STOPPED, StopReason: ashlarv1.VirtualMachine_STOP_REASON_TRIPLE_FAULT}
	if got := State(vm); got != "stopped (triple fault)" {
		t.Errorf("State() = %q", got)
	}
	if got := OperationState(&ashlarv1.Operation{ProgressPercent: 7}); got != "7%" {
		t.Errorf("OperationState() = %q", got)
	}
	for want, b := range map[string]*ashlarv1.MemoryBacking{
		"": nil, "allocated before the start": {Populate: true},
		"transparent huge pages":      {Pages: ashlarv1.MemoryBacking_PAGES_TRANSPARENT},
		"pages of 4KiB":               {Pages: ashlarv1.MemoryBacking_PAGES_4KIB},
		"pages of 2MiB from the pool": {Pages: ashlarv1.MemoryBacking_PAGES_2MIB},
		"pages of 1GiB from the pool, allocated before the start": {Pages: ashlarv1.MemoryBacking_PAGES_1GIB, Populate: true},
	} {
		if got := backing(b); got != want {
			t.Errorf("backing(%v) = %q, want %q", b, got, want)
		}
	}
	// Nothing that a newer host may send makes a table fail.
	for _, r := range []*Rows{Host(nil), VirtualMachine(nil), Counters(nil, true), Image(nil), Operation(nil), VirtualMachines([]*ashlarv1.VirtualMachine{nil}), Images([]*ashlarv1.Image{nil, {State: 99}}), Operations([]*ashlarv1.Operation{nil})} {
		if err := r.Write(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
	}
}

func TestLatency(t *testing.T) {
	last := make([]int64, lastBucket+1)
	last[0], last[lastBucket] = 99, 1
	for _, tt := range []struct {
		counts []int64
		want   string
	}{
		{nil, ""},
		{[]int64{0, 0}, ""},
		{[]int64{5}, "half < 1µs, 99% < 1µs, all < 1µs"},
		{[]int64{0, 0, 50, 49, 0, 0, 0, 0, 0, 0, 0, 1}, "half < 4µs, 99% < 8µs, all < 2.048ms"},
		{[]int64{0, 0, 50, 48, 0, 0, 0, 0, 0, 0, 0, 2}, "half < 4µs, 99% < 2.048ms, all < 2.048ms"},
		{last, "half < 1µs, 99% < 1µs, all >= 16.777216s"},
	} {
		if got := latency(tt.counts); got != tt.want {
			t.Errorf("latency(%v) = %q, want %q", tt.counts, got, tt.want)
		}
	}
}
