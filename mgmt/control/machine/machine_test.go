package machine

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a Core that is not there.
type away struct{}

func (away) Do(context.Context, hostcall.Call) (hostcall.Message, error) {
	return hostcall.Message{}, link.ErrDown
}
func (away) File(context.Context, hostcall.Call) (*os.File, error) { return nil, link.ErrDown }
func (away) Sync(context.Context) error                            { return link.ErrDown }
func (away) WaitUp(ctx context.Context) error                      { <-ctx.Done(); return link.ErrDown }

var uid = strings.Repeat("a", 32)

func manager(t testing.TB, vms ...store.VM) *Manager {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = s.Update(func(tx *store.Tx) error {
		for _, vm := range vms {
			if err := store.VMs.Put(tx, vm); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	log, f := slog.New(slog.DiscardHandler), feed.New()
	ops, open, err := operation.Load(s, f, log)
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.Load(s, away{}, f, log)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Load(s, away{}, f, images, ops, open, log)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// FuzzObserve lets core say anything about guests.
func FuzzObserve(f *testing.F) {
	f.Add([]byte(`[{"id":"` + uid + `","state":"running","addresses":["a","b"],"started":"2026-01-01T00:00:00Z"}]`))
	f.Add([]byte(`[{"id":"` + uid + `","state":"stopped","reason":"reset"}]`))
	f.Add([]byte(`[{"id":"` + uid + `","state":"?","pid":-1}, {"id":""}]`))
	f.Add([]byte(`[]`))
	g := manager(f, store.VM{ID: "demo", UID: uid, NICs: []store.NIC{{Network: "n", MAC: "02:00:00:00:00:01"}}, DesiredRunning: true})
	f.Fuzz(func(t *testing.T, doc []byte) {
		var guests []hostcall.GuestStatus
		if json.Unmarshal(doc, &guests) != nil {
			return
		}
		g.Synced(guests)
		for _, st := range guests {
			g.Changed(st)
		}
		list := g.List()
		if len(list) != 1 || list[0].Uid != uid || list[0].Etag == "" {
			t.Fatalf("list = %v", list)
		}
		if !proto.Equal(g.byID["demo"].Proto(), list[0]) {
			t.Error("the same machine looks different twice")
		}
	})
}

// FuzzValidate checks any request without core's or the store's help.
func FuzzValidate(f *testing.F) {
	seed := func(r *ashlarv1.CreateVirtualMachineRequest) {
		b, _ := proto.Marshal(r)
		f.Add(b)
	}
	seed(&ashlarv1.CreateVirtualMachineRequest{})
	seed(&ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: "demo",
		VirtualMachine: &ashlarv1.VirtualMachine{
			Cpus: 1, MemoryBytes: 64 << 20, Boot: &ashlarv1.Boot{Kernel: "images/k", Initramfs: "x", Cmdline: "\n"},
			Disks:             []*ashlarv1.Disk{{SizeBytes: 512}, nil, {Image: "images/d", SizeBytes: -5}},
			NetworkInterfaces: []*ashlarv1.NetworkInterface{{Network: "n", MacAddress: "02:00:00:00:00:01"}, nil},
		},
	})
	g := manager(f)
	host := &hostcall.HostStatus{MemoryTotal: 1 << 30, Networks: []string{"n"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r ashlarv1.CreateVirtualMachineRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		if _, err := g.validate(&r, host); err == nil {
			t.Errorf("accepted without a kernel that exists: %v", &r)
		}
	})
}

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]string{
		"02:00:5e:00:53:01": "02:00:5e:00:53:01",
		"02-00-5E-00-53-01": "02:00:5e:00:53:01",
		"0200.5e00.5301":    "02:00:5e:00:53:01",
		"":                  "", "x": "", "01:00:5e:00:53:01": "", "00:00:00:00:00:00": "", "02:00:5e:10:00:00:00:01": "",
	} {
		if got, wrong := parseMAC(in); got != want || (wrong == "") != (want != "") {
			t.Errorf("parseMAC(%q) = %q, %q, want %q", in, got, wrong, want)
		}
	}
}

func TestAssignMACs(t *testing.T) {
	g := manager(t)
	rec := store.VM{UID: uid, NICs: []store.NIC{{}, {MAC: "02:00:00:00:00:09"}, {}}}
	first := rec
	if err := g.assignMACs(&first); err != nil {
		t.Fatal(err)
	}
	second := rec
	if err := g.assignMACs(&second); err != nil {
		t.Fatal(err)
	}
	if first.NICs[0].MAC != second.NICs[0].MAC || first.NICs[0].MAC == first.NICs[2].MAC || !strings.HasPrefix(first.NICs[0].MAC, "02:") {
		t.Errorf("assigned %v, then %v", first.NICs, second.NICs)
	}
	g.macs[first.NICs[0].MAC] = true
	third := rec
	if err := g.assignMACs(&third); err != nil || third.NICs[0].MAC == first.NICs[0].MAC {
		t.Errorf("assigned one in use: %v, %v", third.NICs, err)
	}
	g.macs["02:00:00:00:00:09"] = true
	if err := g.assignMACs(&rec); err == nil {
		t.Error("accepted one in use")
	}
}

func TestStartField(t *testing.T) {
	for in, want := range map[string]string{
		"guest.kernel": "boot.kernel", "boot.kernel": "boot.kernel", "guest.memoryBytes": "memory_bytes",
		"disks[3].size": "disks[3].size_bytes", "disks[0].file": "", "disks[1]": "disks[1]",
		"guest.nics[2].network": "network_interfaces[2].network", "nics[0].tap": "", "": "", "id": "",
	} {
		if got := startField(in); got != want {
			t.Errorf("startField(%q) = %q, want %q", in, got, want)
		}
	}
}

// Control that ends while core is away leaves the operation for its next start.
func TestEndWhileAway(t *testing.T) {
	g := manager(t, store.VM{ID: "demo", UID: uid, Kernel: "k"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	op, err := g.Start(Order{Name: "virtualMachines/demo"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	if rec := op.Record(); rec.Done {
		t.Errorf("operation ended: %v", rec)
	}
	var rec store.Operation
	err = g.store.View(func(tx *store.Tx) (err error) {
		rec, _, err = store.Operations.Get(tx, op.Record().ID)
		return err
	})
	if err != nil || rec.Done || rec.Kind != kindStart {
		t.Errorf("stored: %v, %v", rec, err)
	}
	op.Cancel()
	if op.Context().Err() == nil || !op.Cancelled() {
		t.Error("not cancelled")
	}
	if !refuse.IsDown(refuse.Down()) {
		t.Error("Down is not down")
	}
}
