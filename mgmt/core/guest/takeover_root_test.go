//go:build roottest

package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// takenOverName is the name of a guest whose VMM somebody takes over as soon as it is in its
// jail. Its command line is the name of what they try.
const takenOverName = "taken over"

// takenOver is what such a VMM does: it makes the machine of all that core has handed it, and
// enters its jail, as ashlar-vmm does.
func takenOver(spec *protocol.Spec, files []*os.File) *protocol.Error {
	fail := func(err error) *protocol.Error {
		return &protocol.Error{Code: protocol.Internal, Message: err.Error()}
	}
	a, err := jailtest.Find(spec.Boot.Cmdline)
	if err != nil {
		return fail(err)
	}
	if _, err := machine.FromSpec(spec, files); err != nil {
		return err
	}
	if err := jail.Enter(machine.Jail(spec)); err != nil {
		return fail(err)
	}
	return fail(errors.New("end: " + a.Do()))
}

// says is what core says of how an Attempt ended.
var says = map[string]string{
	jailtest.Killed:  "It made a system call that its jail forbids.",
	jailtest.Fatal:   "It ended with exit status 2.",
	jailtest.Starved: "The VMM was killed: the host had no memory left for it.",
	// It writes to its messages and its result, too: core ends it for how much that is.
	jailtest.Harmless: "It ended with signal: killed.",
}

// TestTakenOver has VMMs taken over that core has started, with all descriptors that a guest
// has, beside another guest: it goes on, and so does core.
func TestTakenOver(t *testing.T) {
	b := newBench(t)
	beside := b.start(t, 1, "beside")
	guest := b.create(t, 2)
	before := b.kernelImage(t)
	kinds := make(map[string]bool)
	for _, a := range jailtest.Attempts() {
		// Of those that the filter ends one of each kind: TestTakenOver of vmm/ashlar-vmm has all.
		kind, _, _ := strings.Cut(a.Name, " ")
		if a.Want == jailtest.Killed && kinds[kind] {
			continue
		}
		kinds[kind] = true
		t.Run(a.Name, func(t *testing.T) {
			g := b.guest(takenOverName)
			g.Cmdline, g.HotplugSlots, g.Vsock = a.Name, 1, true
			g.NICs[0].MAC = "02:00:00:00:00:02"
			want, known := says[a.Want]
			if !known {
				want = "end: " + a.Want
			}
			if err := b.Start(t.Context(), guest, g); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ends with %.300v, want %s", err, want)
			}
		})
	}
	if b.kernelImage(t) != before {
		t.Error("an image has been changed")
	}
	if s := b.status(t, beside); s.State != hostcall.Running {
		t.Errorf("the guest beside: %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := b.Counters(ctx, beside); err != nil {
		t.Errorf("the guest beside: %v", err)
	}
}

// kernelImage is what the image of the kernel has in it.
func (b *bench) kernelImage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.c.RunDir, "..", "images", b.kernel))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
