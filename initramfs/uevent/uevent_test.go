package uevent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const addBlock = "add@/devices/pci0000:00/usb1/block/sda/sda2\x00ACTION=add\x00" +
	"DEVPATH=/devices/pci0000:00/usb1/block/sda/sda2\x00SUBSYSTEM=block\x00PARTNAME=ASHLAR-CFG\x00SEQNUM=7\x00"

func TestParse(t *testing.T) {
	got, err := Parse([]byte(addBlock))
	want := Event{Action: "add", Path: "/devices/pci0000:00/usb1/block/sda/sda2", Subsystem: "block"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Parse = %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "\x00", "libudev\x00\xfe\xed", "add", "@/x", "add@", "add@x"} {
		if e, err := Parse([]byte(bad)); !errors.Is(err, ErrNotKernel) || e != (Event{}) {
			t.Errorf("Parse(%q) = %v, %v, want ErrNotKernel", bad, e, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(addBlock))
	f.Add([]byte("add@/\x00"))
	f.Add([]byte("libudev\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err != nil && e != (Event{}) {
			t.Errorf("Parse(%q) = %v with error %v", b, e, err)
		}
	})
}

func TestHub(t *testing.T) {
	var h Hub
	block, stop := h.Listen("block")
	input, stopInput := h.Listen("input")
	defer stopInput()
	h.publish(Event{Path: "/x", Subsystem: "block"})
	h.publish(Event{Path: "/y", Subsystem: "block"})
	if len(block) != 1 || len(input) != 0 {
		t.Errorf("woken: block %d, input %d, want 1, 0", len(block), len(input))
	}
	h.publish(Event{Action: "change"})
	if len(input) != 1 {
		t.Error("an overflow does not wake everybody")
	}
	stop()
	if len(h.listeners) != 1 {
		t.Errorf("%d listeners are left, want 1", len(h.listeners))
	}
}

func TestWait(t *testing.T) {
	var h Hub
	n := 0
	if err := h.Wait(context.Background(), "block", func() bool { n++; return n == 3 }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := h.Wait(ctx, "block", func() bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %v, want DeadlineExceeded", err)
	}
	if len(h.listeners) != 0 {
		t.Errorf("%d listeners are left", len(h.listeners))
	}
}
