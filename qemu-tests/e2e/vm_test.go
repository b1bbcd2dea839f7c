// Images and virtual machines of a host, by plain calls of the API.

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// upload makes an image of a file, if the host has it not yet, with plain calls
// of the API.
func (h *host) upload(t testing.TB, id, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h.uploadBytes(t, id, b)
}

func (h *host) uploadBytes(t testing.TB, id string, b []byte) {
	t.Helper()
	ctx := within(t, 5*time.Minute)
	sum := sha256.Sum256(b)
	i, err := h.Images.CreateImage(ctx, connect.NewRequest(&v1.CreateImageRequest{
		ImageId: id, Image: &v1.Image{SizeBytes: int64(len(b)), Sha256: hex.EncodeToString(sum[:])},
	}))
	if err != nil {
		t.Fatalf("create image %s: %v", id, err)
	}
	if i.Msg.State == v1.Image_STATE_READY {
		return
	}
	if _, err := h.send(ctx, "images/"+id, b, i.Msg.UploadedBytes); err != nil {
		t.Fatalf("upload image %s: %v", id, err)
	}
}

// send brings b from offset on: no more than its name where the host has all of it and has only to
// check it.
func (h *host) send(ctx context.Context, name string, b []byte, offset int64) (*v1.Image, error) {
	s := h.Images.UploadImage(ctx)
	b = b[offset:]
	for first := true; first || len(b) > 0; first = false {
		req := &v1.UploadImageRequest{Name: name, Offset: offset}
		if n := min(1<<20, len(b)); n > 0 {
			req.Piece = &v1.UploadImageRequest_Data{Data: b[:n]}
			b, offset = b[n:], offset+int64(n)
		}
		err := s.Send(req)
		if errors.Is(err, io.EOF) {
			break // the answer says why
		}
		if err != nil {
			return nil, err
		}
	}
	r, err := s.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// testVM describes the small guest.
func testVM(cmdline string, disks ...*v1.Disk) *v1.VirtualMachine {
	return &v1.VirtualMachine{
		Cpus: 1, MemoryBytes: 128 << 20,
		Boot:              &v1.Boot{Kernel: "images/guest-kernel", Initramfs: "images/testguest", Cmdline: "console=ttyS0 quiet " + cmdline},
		Disks:             disks,
		NetworkInterfaces: []*v1.NetworkInterface{{Network: "default"}},
	}
}

// create makes a virtual machine of the small guest's images.
func (h *host) create(t testing.TB, id string, vm *v1.VirtualMachine) {
	t.Helper()
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	if _, err := h.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.CreateVirtualMachineRequest{
		VirtualMachineId: id, VirtualMachine: vm,
	})); err != nil {
		t.Fatalf("create %s: %v", id, err)
	}
}

// done waits for an operation and returns its error.
func (h *host) done(t testing.TB, op *v1.Operation) error {
	t.Helper()
	if op = h.finished(t, op); op.Error != nil {
		return fmt.Errorf("%s: %s", op.Error.Code, op.Error.Message)
	}
	return nil
}

// finished waits for the end of an operation.
func (h *host) finished(t testing.TB, op *v1.Operation) *v1.Operation {
	t.Helper()
	ctx := within(t, 3*time.Minute)
	for !op.Done {
		r, err := h.Operations.WaitOperation(ctx, connect.NewRequest(&v1.WaitOperationRequest{
			Name: op.Name, Timeout: durationpb.New(30 * time.Second),
		}))
		if err != nil {
			t.Fatalf("wait for %s: %v", op.Name, err)
		}
		op = r.Msg
	}
	return op
}

// boot starts a virtual machine.
func (h *host) boot(t testing.TB, id string) {
	t.Helper()
	r, err := h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/" + id}))
	if err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
	if err := h.done(t, r.Msg); err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
}

// stop stops it, by its power button unless forced.
func (h *host) stop(t testing.TB, id string, force bool) {
	t.Helper()
	r, err := h.VirtualMachines.StopVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StopVirtualMachineRequest{Name: "virtualMachines/" + id, Force: force}))
	if err != nil {
		t.Fatalf("stop %s: %v", id, err)
	}
	if err := h.done(t, r.Msg); err != nil {
		t.Fatalf("stop %s: %v", id, err)
	}
}

func (h *host) remove(t testing.TB, id string) {
	t.Helper()
	r, err := h.VirtualMachines.DeleteVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.DeleteVirtualMachineRequest{Name: "virtualMachines/" + id, Force: true}))
	if err != nil {
		t.Fatalf("delete %s: %v", id, err)
	}
	if err := h.done(t, r.Msg); err != nil {
		t.Fatalf("delete %s: %v", id, err)
	}
}

func (h *host) vm(t testing.TB, id string) *v1.VirtualMachine {
	t.Helper()
	r, err := h.VirtualMachines.GetVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.GetVirtualMachineRequest{Name: "virtualMachines/" + id}))
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return r.Msg
}

// waitStopped waits until it has stopped by itself and checks the reason.
func (h *host) waitStopped(t testing.TB, id string, want v1.VirtualMachine_StopReason) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		vm := h.vm(t, id)
		if vm.State == v1.VirtualMachine_STATE_STOPPED {
			if vm.StopReason != want {
				t.Fatalf("%s stopped with %v (%s), want %v", id, vm.StopReason, vm.StopMessage, want)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v, want it stopped with %v", id, vm.State, want)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
