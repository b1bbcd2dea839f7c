package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

func TestParseStartTime(t *testing.T) {
	tail := strings.Repeat(" 1", 18) + " 777 2 3"
	tests := []struct {
		stat string
		want uint64
		ok   bool
	}{
		{"12 (vmm) S" + tail, 777, true},
		{"12 (a) (b) ) S" + tail, 777, true},
		{"12 (vmm) S 1 2", 0, false},
		{"", 0, false},
		{"12 (vmm) S" + strings.Repeat(" x", 30), 0, false},
	}
	for _, tt := range tests {
		got, err := parseStartTime(tt.stat)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseStartTime(%q) = %d, %v; want %d, %v", tt.stat, got, err, tt.want, tt.ok)
		}
	}
	if n, err := startTime(os.Getpid()); err != nil || n == 0 {
		t.Errorf("startTime of this process = %d, %v", n, err)
	}
}

// FuzzStartTime reads stat files: a process chooses its own name in it.
func FuzzStartTime(f *testing.F) {
	f.Add("x) R 1 (")
	f.Add("")
	f.Add("\n) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 9")
	f.Fuzz(func(t *testing.T, name string) {
		_, _ = parseStartTime(name)
		n, err := parseStartTime("12 (" + name + ") S" + strings.Repeat(" 1", 18) + " 777 2 3\n")
		if n != 777 || err != nil {
			t.Errorf("parseStartTime with the name %q = %d, %v", name, n, err)
		}
	})
}

func TestAdoptProcessOther(t *testing.T) {
	if _, err := adoptProcess(os.Getpid(), 1); err == nil {
		t.Error("adoptProcess of another process: no error")
	}
}

func FuzzRecord(f *testing.F) {
	const id = "0123456789abcdef0123456789abcdef"
	f.Add([]byte(`{"id":"` + id + `","slot":3,"nics":[{"mac":"x"}],"leased":[""]}`))
	f.Add([]byte(`{"id":"` + id + `","slot":-3}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b, id)
		if err != nil {
			if r.ID != "" || r.NICs != nil {
				t.Errorf("an error, and the record %+v", r)
			}
			return
		}
		if r.ID != id || r.Slot < 0 || r.uid() < 100000 || len(r.Leased) != len(r.NICs) {
			t.Errorf("decodeRecord accepts %+v", r)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"reason":"powered-off"}`))
	f.Add([]byte(`{"reason":"failed","message":"\u0000\u001b[31m<\"\\"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeResult(b)
		if err != nil {
			if r != (protocol.Result{}) {
				t.Errorf("an error, and the result %+v", r)
			}
			return
		}
		if text, err := json.Marshal(r.Message); err != nil || len(text) != len(r.Message)+2 {
			t.Errorf("message %q is %s in JSON, %v", r.Message, text, err)
		}
		if len(r.Message) > maxMessage || strings.ContainsFunc(r.Message, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("message %q is not clean", r.Message)
		}
	})
}

func TestRefusal(t *testing.T) {
	tests := []struct {
		err  error
		want hostcall.Error
	}{
		{&protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: "x"}, hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.kernel", Message: "x"}},
		{&protocol.Error{Code: protocol.InvalidArgument, Field: "disks[0].file", Message: "x"}, hostcall.Error{Code: hostcall.InvalidArgument, Field: "disks[0].file", Message: "x"}},
		{&protocol.Error{Code: protocol.Unavailable, Field: "nics[1].tap", Message: "x"}, hostcall.Error{Code: hostcall.Unavailable, Field: "guest.nics[1].tap", Message: "x"}},
		{&protocol.Error{Code: "new", Message: "x\ny"}, hostcall.Error{Code: hostcall.Internal, Message: "x y"}},
		{fmt.Errorf("query: %w", errors.New("gone")), hostcall.Error{Code: hostcall.Unavailable, Message: "The guest's VMM does not answer: query: gone."}},
	}
	for _, tt := range tests {
		var got *hostcall.Error
		if err := refusal(tt.err); !errors.As(err, &got) || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("refusal(%v) = %+v, want %+v", tt.err, got, tt.want)
		}
	}
}

func TestGuestMemory(t *testing.T) {
	f, err := guestMemory(64<<20, protocol.DefaultPages)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, 128 << 20} {
		if err := f.Truncate(size); err == nil {
			t.Errorf("memory changed its size to %d", size)
		}
	}
}

// TestUseOf looks at disks in memory.
func TestUseOf(t *testing.T) {
	spec, l := new(protocol.Spec), new(fileList)
	defer l.close()
	l.add(nil) // other files come first
	for _, size := range []uint64{3 << 20, 1 << 20} {
		f, err := guestMemory(size, protocol.DefaultPages) // in a tmpfs of the kernel's own
		if err != nil {
			t.Fatal(err)
		}
		spec.Disks = append(spec.Disks, protocol.Disk{File: l.add(f)})
	}
	if use, err := useOf(l.disks(spec)); err != nil || use != (diskUse{largest: 3 << 20, memory: 4 << 20}) {
		t.Errorf("useOf = %+v, %v", use, err)
	}
	if use, err := useOf(l.disks(new(protocol.Spec))); err != nil || use != (diskUse{}) {
		t.Errorf("useOf no disks = %+v, %v", use, err)
	}
}

// TestOverhead holds that the tables of a guest's pages fit besides its memory,
// and that what admit calls free is free with them.
func TestOverhead(t *testing.T) {
	for _, size := range []uint64{memoryMin, 512 << 20, 64 << 30, memoryMax} {
		for _, pages := range protocol.AllPages() {
			r := &record{MemoryBytes: size, Pages: protocol.Pages(pages), VCPUs: 16}
			tables := int64(size / 4096 * (8 + 8 + 576/64)) // two page tables, and nodes of 576 bytes for 64 pages
			need := int64(size)
			if r.Pages.PoolSize() > 0 {
				tables, need = int64(size/4096*8), 0 // the guest's, in the worst case
			}
			got := overhead(size, r.Pages, 1)
			if got < tables+32<<20 {
				t.Errorf("overhead(%d MiB, %s) = %d MiB, its tables alone have %d", size>>20, pages, got>>20, tables>>20)
			}
			need += overhead(size, r.Pages, 16)
			if got := r.promised(); got != need {
				t.Errorf("%d MiB on pages %s: promised() = %d, want %d", size>>20, pages, got, need)
			}
			need += memoryReserve
			m := &Manager{}
			for _, tt := range []struct {
				available int64
				ok        bool
			}{{need + 2*memoryUnit, true}, {need - 1, false}} {
				m.c.Memory = func() (int64, error) { return tt.available, nil }
				if err := m.admit(r); (err == nil) != tt.ok || err != nil && code(err) != hostcall.ResourceExhausted {
					t.Errorf("admit(%d MiB on pages %s) with %d bytes of %d: %v", size>>20, pages, tt.available, need, err)
				}
			}
		}
	}
}

func TestIsStream(t *testing.T) {
	fds, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	stream, other := os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	packets, peer, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer seqpacket.CloseAll([]*os.File{stream, other, packets, peer, null})
	for f, want := range map[*os.File]bool{stream: true, packets: false, null: false} {
		if got := isStream(f); got != want {
			t.Errorf("isStream(%s) = %v, want %v", f.Name(), got, want)
		}
	}
}

func TestRecordCounts(t *testing.T) {
	r := record{NICs: make([]folder.Interface, 2)}
	r.count(1, map[string]uint64{"rx_dropped": 3})
	before := r.Counted[1]
	r.count(1, map[string]uint64{"rx_dropped": 4, "tx_dropped": 1})
	r.count(0, map[string]uint64{"tx_dropped": 2})
	if before["rx_dropped"] != 3 || r.Counted[1]["rx_dropped"] != 7 || r.Counted[1]["tx_dropped"] != 1 || r.Counted[0]["tx_dropped"] != 2 {
		t.Errorf("counted %v, before %v", r.Counted, before)
	}
}
