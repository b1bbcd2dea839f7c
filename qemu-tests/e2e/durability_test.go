package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// ack is the highest number that a guest running `log` has shown.
func (c *console) ack() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(c.text.String(), "\n")
	for i := len(lines) - 2; i >= 0; i-- { // the last may be half a line
		if s, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), "ACK "); ok {
			n, err := strconv.Atoi(s)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// waitAcks waits for n acknowledged writes.
func (c *console) waitAcks(n int, d time.Duration) {
	c.t.Helper()
	for deadline := time.Now().Add(d); c.ack() < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s acknowledged %d writes within %v, want %d", c.id, c.ack(), d, n)
		}
	}
}

func TestDiskSurvivesRebootAndPowerCut(t *testing.T) {
	h := newHost(t, options{})
	h.create(t, "keeper", testVM("", &v1.Disk{SizeBytes: 64 << 20}))
	h.boot(t, "keeper")
	c := h.console(t, "keeper")
	c.expect("TESTGUEST ready", patience)
	c.ask("write /dev/vda 7 16")
	h.setPoolForBoot(t)
	h.setVFsForBoot(t)

	// The power button of the host stops its guests and switches it off.
	if err := h.Down(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	h.reboot(t)
	h.checkPoolAfterBoot(t)
	h.checkVFsAfterBoot(t)
	if vm := h.vm(t, "keeper"); vm.State != v1.VirtualMachine_STATE_STOPPED {
		t.Fatalf("after the host's reboot the guest is %v, want it stopped", vm.State)
	}
	h.boot(t, "keeper")
	c = h.console(t, "keeper")
	c.expect("TESTGUEST ready", patience)
	c.ask("check /dev/vda 7 16")

	c.say("log /dev/vda")
	c.waitAcks(20, patience)
	if err := h.Cut(); err != nil {
		t.Fatal(err)
	}
	acknowledged := c.ack()
	h.reboot(t)
	h.checkPoolAfterBoot(t)
	h.checkVFsAfterBoot(t)
	h.boot(t, "keeper")
	c = h.console(t, "keeper")
	c.expect("TESTGUEST ready", patience)
	last, err := strconv.Atoi(c.ask("last /dev/vda"))
	if err != nil {
		t.Fatal(err)
	}
	if last < acknowledged {
		t.Errorf("the guest had acknowledged write %d before the power cut, the disk holds %d", acknowledged, last)
	}
	t.Logf("acknowledged %d, on disk %d", acknowledged, last)
}

func TestPowerButtonWhileCoreIsAway(t *testing.T) {
	h := newHost(t, options{})
	h.create(t, "orphan", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	h.boot(t, "orphan")
	h.console(t, "orphan").expect("TESTGUEST ready", patience)
	// Each death doubles the time until core is started again.
	for range 6 {
		for deadline := time.Now().Add(patience); len(h.pids(t, "ashlar-core")) == 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("core did not come back")
			}
		}
		h.shell(t, "kill -9 "+strings.Join(h.pids(t, "ashlar-core"), " "))
	}
	if err := h.Down(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if said := h.Serial(); !strings.Contains(said, "guests run without core") {
		t.Errorf("core was there when the power button was pressed; the end of the host's console:\n%s", h.Tail())
	}
	h.reboot(t)
	if out := h.mustCtl(t, "vm", "logs", "orphan"); !strings.Contains(out, "TESTGUEST power button") {
		t.Errorf("the guest was not asked to power off:\n%s", out)
	}
}

func TestControlKilledWhileAGuestRuns(t *testing.T) {
	h := sharedHost(t)
	h.survives(t, "ashlar-control")
}

func TestCoreKilledWhileAGuestRuns(t *testing.T) {
	h := sharedHost(t)
	h.survives(t, "ashlar-core")
}

// survives kills a program of the host's and sees its guest unharmed.
func (h *host) survives(t *testing.T, program string) {
	h.create(t, "survivor", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "survivor") })
	h.boot(t, "survivor")
	c := h.console(t, "survivor")
	c.expect("TESTGUEST ready", patience)
	started := h.vm(t, "survivor").StartTime.AsTime()
	vmm := h.pids(t, "ashlar-vmm")
	old := h.pids(t, program)
	if len(old) != 1 || len(vmm) != 1 {
		t.Fatalf("%d of %s and %d of ashlar-vmm run, want one of each", len(old), program, len(vmm))
	}
	h.shell(t, "kill -9 "+old[0])
	vm := h.vm(t, "survivor") // waits until the API answers again
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		now := h.pids(t, program)
		if len(now) == 1 && now[0] != old[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come back: %v", program, now)
		}
	}
	for deadline := time.Now().Add(patience); vm.State != v1.VirtualMachine_STATE_RUNNING && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		vm = h.vm(t, "survivor")
	}
	if vm.State != v1.VirtualMachine_STATE_RUNNING || !vm.StartTime.AsTime().Equal(started) {
		t.Errorf("the guest is %v since %v, want it running since %v", vm.State, vm.StartTime.AsTime(), started)
	}
	if now := h.pids(t, "ashlar-vmm"); len(now) != 1 || now[0] != vmm[0] {
		t.Errorf("the VMM was process %v and is %v", vmm, now)
	}
	c = h.console(t, "survivor")
	if got := c.ask("write /dev/vda 3 4"); got != "4" {
		t.Errorf("the guest's disk says %q", got)
	}
	h.stop(t, "survivor", false)
	h.waitStopped(t, "survivor", v1.VirtualMachine_STOP_REASON_POWERED_OFF)
}

func TestControlKilledWhileAnUploadRuns(t *testing.T) {
	h := sharedHost(t)
	content := make([]byte, 48<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(content)
	ctx := within(t, 5*time.Minute)
	if _, err := h.Images.CreateImage(ctx, connect.NewRequest(&v1.CreateImageRequest{
		ImageId: "interrupted", Image: &v1.Image{SizeBytes: int64(len(content)), Sha256: hex.EncodeToString(sum[:])},
	})); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.send(context.WithoutCancel(ctx), "images/interrupted", content, 0)
		failed <- err
	}()
	for {
		i, err := h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: "images/interrupted"}))
		if err != nil {
			t.Fatal(err)
		}
		if i.Msg.UploadedBytes >= 12<<20 {
			break
		}
	}
	h.shell(t, "kill -9 "+strings.Join(h.pids(t, "ashlar-control"), " "))
	if err := <-failed; err == nil {
		t.Fatal("the upload ended well although control was killed: too small to tell")
	}
	i, err := h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: "images/interrupted"}))
	if err != nil {
		t.Fatal(err)
	}
	if i.Msg.UploadedBytes == 0 {
		t.Error("nothing of the upload was kept")
	}
	t.Logf("going on from %d of %d bytes", i.Msg.UploadedBytes, len(content))
	got, err := h.send(ctx, "images/interrupted", content, i.Msg.UploadedBytes)
	if err != nil {
		t.Fatal(err)
	}
	if got.State != v1.Image_STATE_READY {
		t.Errorf("the image is %v after the whole upload, want READY", got.State)
	}
	h.mustCtl(t, "image", "delete", "interrupted")
}

func TestConfigurationWithErrorsNamesTheLine(t *testing.T) {
	h := sharedHost(t)
	dir := t.TempDir()
	doc := filepath.Join(dir, "ashlar.yaml")
	if err := os.WriteFile(doc, []byte("version: 1\nhostname: lab\nnetwork:\n  dhpc: true\ndisks: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stick := filepath.Join(dir, lab.StickFile)
	copyFile(t, filepath.Join(top, "out/ashlar.img"), stick)
	before, err := os.ReadFile(stick)
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.ctl("image", "configure", stick, "--config", doc)
	if err == nil {
		t.Fatal("a document with errors was taken")
	}
	for _, want := range []string{"4", "dhpc", "5", "disks"} {
		if !strings.Contains(out, want) {
			t.Errorf("the error does not name %q:\n%s", want, out)
		}
	}
	after, err := os.ReadFile(stick)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the image was changed although the document was refused")
	}
}

func TestHostWithoutADiskComesUp(t *testing.T) {
	h := newHost(t, options{noDisk: true})
	r, err := h.Hosts.GetHost(within(t, time.Minute), connect.NewRequest(&v1.GetHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Msg.Problems) == 0 || !strings.Contains(fmt.Sprint(r.Msg.Problems), "disk") {
		t.Errorf("problems are %q, want one about the missing disk", r.Msg.Problems)
	}
}
