package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// The largest machine runs within what its jail leaves it.
func TestMostVCPUsInJail(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Spin(), func(s *protocol.Spec) { s.VCPUs = machine.MaxVCPUs }); err != nil {
		t.Fatal(err)
	}
	v.ask(protocol.Pause)
	v.ask(protocol.Resume)
	if resp := v.ask(protocol.CountersMethod); len(resp.Counters.VCPUs["exits"]) != machine.MaxVCPUs {
		t.Errorf("counters of %d vCPUs, want %d", len(resp.Counters.VCPUs["exits"]), machine.MaxVCPUs)
	}
	v.ask(protocol.Stop)
	if got := v.ended(0); got.Reason != protocol.Killed {
		t.Errorf("result = %+v, want killed", got)
	}
}

func TestParseCPU(t *testing.T) {
	poll := uint64(50 * time.Microsecond)
	got, err := parseCPU("x86-64-v3,sockets=2,cores=4,threads=2,hyperv,poll=50us")
	want := &protocol.CPU{Model: "x86-64-v3", Sockets: 2, Cores: 4, Threads: 2, HyperV: true, HaltPollNs: &poll}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("parseCPU (-want +got): %v\n%s", err, d)
	}
	for _, bad := range []string{"sockets=x", "poll=5", "numa=1"} {
		if got, err := parseCPU(bad); err == nil {
			t.Errorf("parseCPU(%q) = %+v", bad, got)
		}
	}
}
