package main

import (
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// givesUp is a guest that gives up its second processor whenever it is asked to.
var givesUp = tinykernel.Code{
	0x66, 0xba, 0x10, 0x06, 0xb8, 1, 0, 0, 0, 0xef, // mov dx, 0x610; mov eax, 1; out dx, eax
	0x66, 0xba, 0x14, 0x06, 0xec, 0xa8, 4, 0x74, 0xed, // mov dx, 0x614; in al, dx; test al, 4; jz to the start
	0xb0, 8, 0xee, 0xeb, 0xe8, // mov al, 8; out dx, al; jmp to the start
}

// TestVCPUsInJail lets a processor come and go within what the jail leaves: its filter
// has to allow what that needs.
func TestVCPUsInJail(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(givesUp, func(s *protocol.Spec) { s.VCPUs, s.MaxVCPUs = 1, 2 }); err != nil {
		t.Fatal(err)
	}
	set := func(n int) (protocol.VCPUs, *protocol.Error) {
		resp, _ := v.call(protocol.Request{Method: protocol.SetVCPUs, VCPUs: n})
		if resp.Status == nil || resp.Status.VCPUs == nil {
			t.Fatalf("set-vcpus %d = %+v", n, resp)
		}
		return *resp.Status.VCPUs, resp.Error
	}
	for range 3 {
		if got, err := set(2); err != nil || got != (protocol.VCPUs{Present: 2, Target: 2}) {
			t.Errorf("set-vcpus 2 = %+v, %v", got, err)
		}
		if _, err := set(1); err != nil {
			t.Error(err)
		}
		for deadline := time.Now().Add(20 * time.Second); v.ask(protocol.Query).Status.VCPUs.Present != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the guest does not give up its second processor")
			}
		}
	}
	if _, err := set(3); err == nil || err.Code != protocol.InvalidArgument || err.Field != "vcpus" {
		t.Errorf("set-vcpus 3 = %v", err)
	}
	v.ask(protocol.Pause)
	if got, err := set(2); err != nil || got.Present != 2 {
		t.Errorf("set-vcpus while paused = %+v, %v", got, err)
	}
	v.ask(protocol.Resume)
	v.ask(protocol.Stop)
	v.ended(0)
}
