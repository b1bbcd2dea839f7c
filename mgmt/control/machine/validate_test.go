package machine

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

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
		"guest.kernel": "boot.kernel", "boot.kernel": "boot.kernel", "guest.memoryBytes": "memory_bytes", "balloonBytes": "balloon_bytes",
		"disks[3].size": "disks[3].size_bytes", "guest.disks[1].limits.burstBytes": "disks[1].limits", "disks[0].file": "", "disks[1]": "disks[1]",
		"guest.backing.pages": "memory_backing.pages", "guest.cpu.model": "processor.model", "cpu": "processor", "cpu.haltPollNs": "processor.halt_poll",
		"numa": "numa_nodes", "guest.numa[1].hostNodes": "numa_nodes[1].host_nodes", "guest.numa[15].memoryBytes": "numa_nodes[15].memory_bytes", "numa[0].vcpus": "numa_nodes[0].cpus",
		"guest.nics[2].network": "network_interfaces[2].network", "guest.nics[1].limits.receive.burstBytes": "network_interfaces[1].limits", "nics[0].tap": "", "": "", "id": "",
	} {
		if got := startField(in); got != want {
			t.Errorf("startField(%q) = %q, want %q", in, got, want)
		}
	}
}

// What core would refuse at each start is refused at the creation.
func TestValidateAsCore(t *testing.T) {
	g := manager(t)
	host := &hostcall.HostStatus{MemoryTotal: 4 << 40}
	for field, change := range map[string]func(*ashlarv1.VirtualMachine){
		"":                      func(*ashlarv1.VirtualMachine) {},
		".boot.cmdline":         func(vm *ashlarv1.VirtualMachine) { vm.Boot.Cmdline = "hostname=caf\u00e9" },
		".memory_bytes":         func(vm *ashlarv1.VirtualMachine) { vm.MemoryBytes = 2 << 40 },
		".memory_backing.pages": func(vm *ashlarv1.VirtualMachine) { vm.MemoryBacking.Pages = 9 },
		".processor":            func(vm *ashlarv1.VirtualMachine) { vm.Processor.Cores = 3 },
		".processor.model":      func(vm *ashlarv1.VirtualMachine) { vm.Processor.Model = "486" },
		".balloon_bytes":        func(vm *ashlarv1.VirtualMachine) { vm.BalloonBytes = 1 << 40 },
		".disks[0].limits.burst_bytes": func(vm *ashlarv1.VirtualMachine) {
			vm.Disks = []*ashlarv1.Disk{{SizeBytes: 4096, Limits: &ashlarv1.DiskLimits{BurstBytes: 1}}}
		},
		".disks[0].limits.operations_per_second": func(vm *ashlarv1.VirtualMachine) {
			vm.Disks = []*ashlarv1.Disk{{SizeBytes: 4096, Limits: &ashlarv1.DiskLimits{OperationsPerSecond: -1}}}
		},
		".numa_nodes": func(vm *ashlarv1.VirtualMachine) {
			vm.NumaNodes = []*ashlarv1.NumaNode{{Cpus: []int32{0, 1}, MemoryBytes: 1 << 40}}
		},
		".numa_nodes[0].memory_bytes": func(vm *ashlarv1.VirtualMachine) {
			vm.NumaNodes = []*ashlarv1.NumaNode{{MemoryBytes: -(1 << 30)}}
		},
		".numa_nodes[1].host_nodes": func(vm *ashlarv1.VirtualMachine) {
			vm.NumaNodes = []*ashlarv1.NumaNode{{MemoryBytes: 1 << 30}, {MemoryBytes: 1 << 30, HostNodes: []int32{-1}}}
		},
		".processor.halt_poll": func(vm *ashlarv1.VirtualMachine) {
			vm.Processor.HaltPoll = durationpb.New(11 * time.Millisecond)
		},
	} {
		vm := &ashlarv1.VirtualMachine{Cpus: 8, MemoryBytes: 1 << 40,
			MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_1GIB, Populate: true}, Processor: &ashlarv1.Processor{Model: "x86-64-v2", Threads: 2}, Boot: &ashlarv1.Boot{Kernel: "images/k", Cmdline: "console=ttyS0 a=~"}}
		change(vm)
		_, err := g.validate(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "demo", VirtualMachine: vm}, host)
		got := refuse.Sentence(err) // of the kernel, which does not exist, too
		for _, f := range []string{".boot.cmdline", ".memory_bytes", ".memory_backing.pages", ".balloon_bytes", ".processor", ".processor.model", ".processor.halt_poll",
			".disks[0].limits.burst_bytes", ".disks[0].limits.operations_per_second",
			".numa_nodes", ".numa_nodes[0].memory_bytes", ".numa_nodes[1].host_nodes"} {
			if want := f == field; strings.Contains(got, "virtual_machine"+f+": ") != want {
				t.Errorf("with a wrong %q: %s", field, got)
			}
		}
	}
}

// Memory on pages of a pool is a whole number of them.
func TestWholePages(t *testing.T) {
	for kind, faults := range map[ashlarv1.MemoryBacking_Pages]int{
		ashlarv1.MemoryBacking_PAGES_UNSPECIFIED: 0, ashlarv1.MemoryBacking_PAGES_TRANSPARENT: 0,
		ashlarv1.MemoryBacking_PAGES_2MIB: 0, ashlarv1.MemoryBacking_PAGES_1GIB: 1, ashlarv1.MemoryBacking_PAGES_4KIB: 0,
	} {
		c := &checker{}
		var rec store.VM
		c.backing(&ashlarv1.VirtualMachine{MemoryBytes: 1<<30 + 2<<20, MemoryBacking: &ashlarv1.MemoryBacking{Pages: kind}}, &rec)
		if len(c.wrong) != faults || rec.Backing.Pages != pages[kind] {
			t.Errorf("%v: %v, %+v", kind, c.wrong, rec.Backing)
		}
	}
}

// What is asked of processors and memory is shown, and told to core, as it was asked.
func TestOptionsAreKept(t *testing.T) {
	g := managerWith(t, []store.Image{{ID: "k", UID: strings.Repeat("b", 32), Complete: true}})
	asked := &ashlarv1.Processor{Model: "x86-64-v3", Sockets: 2, Cores: 3, Threads: 2, Hyperv: true, HaltPoll: durationpb.New(50 * time.Microsecond)}
	backing := &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_2MIB, Populate: true}
	node := &ashlarv1.NumaNode{Cpus: []int32{11, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, MemoryBytes: 1 << 30, HostNodes: []int32{1, 0}, Distances: []int32{10}}
	rec, err := g.validate(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "demo", VirtualMachine: &ashlarv1.VirtualMachine{
		Cpus: 12, MemoryBytes: 1 << 30, Boot: &ashlarv1.Boot{Kernel: "images/k"}, Processor: asked,
		MemoryBacking: backing, NumaNodes: []*ashlarv1.NumaNode{node}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	rec = store.VM{}
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	if got := describe(rec).Processor; !proto.Equal(got, asked) {
		t.Errorf("processor = %v, want %v", got, asked)
	}
	if got := describe(rec).NumaNodes; len(got) != 1 || !proto.Equal(got[0], node) {
		t.Errorf("numa_nodes = %v, want %v", got, node)
	}
	if got := describe(rec).MemoryBacking; !proto.Equal(got, backing) {
		t.Errorf("memory_backing = %v, want %v", got, backing)
	}
	call, err := (&Machine{g: g, rec: rec}).startCall()
	if err != nil {
		t.Fatal(err)
	}
	ns := uint64(50_000)
	want := &protocol.CPU{Model: "x86-64-v3", Sockets: 2, Cores: 3, Threads: 2, HyperV: true, HaltPollNs: &ns}
	if !reflect.DeepEqual(call.Guest.CPU, want) {
		t.Errorf("core is told %+v, want %+v", call.Guest.CPU, want)
	}
	if want := (protocol.Backing{Pages: protocol.Pages2MiB, Populate: true}); call.Guest.Backing == nil || *call.Guest.Backing != want {
		t.Errorf("core is told %+v, want %+v", call.Guest.Backing, want)
	}
}
