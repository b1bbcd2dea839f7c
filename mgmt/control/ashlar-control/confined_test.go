package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// All that control does, it can do confined.
func TestConfined(t *testing.T) {
	d := newDaemon(t)
	d.start()
	vm := d.machine()
	d.startVM(vm.Name)
	stream := d.machines.Console(ctxOf(t))
	if err := stream.Send(&ashlarv1.ConsoleRequest{Name: vm.Name, Input: []byte("root\n")}); err != nil {
		t.Fatal(err)
	}
	d.core.Print(vm.Uid, "login: ")
	if res, err := stream.Receive(); err != nil || string(res.Output) != "login: " {
		t.Errorf("console: %v, %v", res, err)
	}
	d.core.Stop() // and connect again
	if err := d.core.Start(); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, err := d.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{})); connect.CodeOf(err) == connect.CodeInvalidArgument {
			break
		} else if i == 500 {
			t.Fatalf("not connected to core again: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.wait(d.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name})))
	for {
		res, err := stream.Receive()
		if err != nil {
			t.Fatalf("console ended without a word: %v", err)
		}
		if res.Ended != nil {
			break
		}
	}
	if got := d.core.Typed(vm.Uid); got != "root\n" {
		t.Errorf("typed %q", got)
	}
	stream.CloseRequest()
	stream.CloseResponse()
	log, err := d.machines.ReadLog(ctxOf(t), req(&ashlarv1.ReadLogRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	if !log.Receive() || string(log.Msg().Data) != "login: " {
		t.Errorf("log: %q, %v", log.Msg().Data, log.Err())
	}
	log.Close()
	// Many connections, to exercise threads and the garbage collector.
	for range 20 {
		transport := &http.Transport{TLSClientConfig: d.ca.Client(t, d.ca), ForceAttemptHTTP2: true}
		c := ashlarv1connect.NewImageServiceClient(&http.Client{Transport: transport}, "https://"+d.address)
		if _, err := c.ListImages(ctxOf(t), req(&ashlarv1.ListImagesRequest{})); err != nil {
			t.Fatal(err)
		}
		transport.CloseIdleConnections()
	}
	d.alive()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status of control lacks %q", want)
		}
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	d.cmd = nil
	if n := strings.Count(d.log.String(), "msg=audit"); n < 6 {
		t.Errorf("%d audit lines", n)
	}
}

func TestKilledDuringUpload(t *testing.T) {
	d := newDaemon(t)
	d.start()
	data, sum := content(80 << 20)
	d.announce("disk", data, sum)
	ended := make(chan error, 1)
	go func() {
		_, err := d.upload("images/disk", 0, data)
		ended <- err
	}()
	var at int64
	for at < 40<<20 {
		res, err := d.images.GetImage(ctxOf(t), req(&ashlarv1.GetImageRequest{Name: "images/disk"}))
		if err != nil {
			t.Fatal(err)
		}
		if res.Msg.State == ashlarv1.Image_STATE_READY {
			t.Fatal("the upload was faster than the test")
		}
		at = res.Msg.UploadedBytes
	}
	d.kill()
	if err := <-ended; err == nil {
		t.Fatal("the upload ended well")
	}
	d.start()
	res, err := d.images.GetImage(ctxOf(t), req(&ashlarv1.GetImageRequest{Name: "images/disk"}))
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Msg.UploadedBytes; n == 0 || n > int64(len(data)) {
		t.Errorf("after the kill: %v", res.Msg)
	}
	im, err := d.upload("images/disk", res.Msg.UploadedBytes, data[res.Msg.UploadedBytes:])
	if err != nil || im.State != ashlarv1.Image_STATE_READY {
		t.Errorf("resumed: %v, %v", im, err)
	}
}

func TestKilledDuringOperations(t *testing.T) {
	d := newDaemon(t)
	d.start()
	vm := d.machine()
	release := d.core.Hold(hostcall.GuestStart)
	defer release()
	start, err := d.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	for d.core.Calls(hostcall.GuestStart) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	d.kill()
	release()
	d.start()
	if op := d.wait(start, nil); op.Error != nil {
		t.Errorf("start = %v", op)
	}
	if n := d.core.Calls(hostcall.GuestStart); n != 1 {
		t.Errorf("the guest was started %d times", n)
	}
	d.core.Stubborn(true)
	stop, err := d.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, GracePeriod: durationpb.New(500 * time.Millisecond)}))
	if err != nil {
		t.Fatal(err)
	}
	d.kill()
	d.start()
	if op := d.wait(stop, nil); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
}

func TestNoCA(t *testing.T) {
	d := newDaemon(t)
	d.settings.ClientCA = ""
	d.start()
	for i := 0; !strings.Contains(d.log.String(), "stays closed to everyone"); i++ {
		if i == 500 {
			t.Fatalf("no word about it")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(d.log.String(), "no client CA is configured") {
		t.Error("no reason given")
	}
	for i := 0; ; i++ {
		c, err := net.DialTimeout("tcp", d.address, time.Second)
		if err != nil {
			break
		}
		c.Close()
		if i == 100 {
			t.Fatal("somebody is let in")
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.alive()
}

// Without a store that can be opened control tells everybody why, and what is known of the
// host all the same.
func TestDamagedStore(t *testing.T) {
	d := newDaemon(t)
	damaged := bytes.Repeat([]byte("x"), 65536)
	d.write(t, "control.db", damaged)
	d.start()
	if _, err := d.machines.ListVirtualMachines(ctxOf(t), req(&ashlarv1.ListVirtualMachinesRequest{})); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "left untouched") {
		t.Errorf("list: %v, want UNAVAILABLE with the reason", err)
	}
	watch, err := d.watch.Watch(ctxOf(t), req(&ashlarv1.WatchRequest{}))
	if err == nil && !watch.Receive() {
		err = watch.Err()
	}
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("watch: %v, want UNAVAILABLE", err)
	}
	for i := 0; ; i++ {
		res, err := d.hosts.GetHost(ctxOf(t), req(&ashlarv1.GetHostRequest{}))
		if err == nil {
			if p := strings.Join(res.Msg.Problems, " "); !strings.Contains(p, "left untouched") {
				t.Errorf("problems: %q", p)
			}
			break
		}
		if i == 100 { // core is connected to meanwhile
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.alive()
	d.kill()
	if b, err := os.ReadFile(filepath.Join(d.core.Dir, "control.db")); err != nil || !bytes.Equal(b, damaged) {
		t.Errorf("the store was changed: %v", err)
	}
	d.write(t, "control.db", nil)
	d.start()
	if _, err := d.machines.ListVirtualMachines(ctxOf(t), req(&ashlarv1.ListVirtualMachinesRequest{})); err != nil {
		t.Errorf("list with a store again: %v", err)
	}
}

func TestCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*daemon)
		want    string
	}{
		"no certificate": {func(d *daemon) { d.settings.Certificate = "" }, "host's certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			c.prepare(d)
			d.start()
			err := d.cmd.Wait()
			d.cmd = nil
			if err == nil || !strings.Contains(d.log.String(), c.want) {
				t.Errorf("%v, log %s, want %q", err, d.log, c.want)
			}
		})
	}
}

func (d *daemon) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.core.Dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}
