package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// patience is how long a guest of several processors may take over a command:
// in software emulation its timers come up to a minute late at times.
const patience = 5 * time.Minute

func TestDebianToLoginPromptAndBack(t *testing.T) {
	h := sharedHost(t)
	demo := filepath.Join(top, "out/demo")
	for _, f := range []string{"vmlinuz", "initrd.img", "disk.img"} {
		h.mustCtl(t, "image", "upload", filepath.Join(demo, f), "--name", "debian-"+f)
	}
	h.mustCtl(t, "vm", "create", "debian", "--cpus", "2,max=2", "--memory", "512MiB", "--kernel", "debian-vmlinuz", "--initramfs", "debian-initrd.img",
		"--cmdline", "root=/dev/vda rw console=ttyS0 quiet", "--disk", "debian-disk.img,size=2GiB", "--network", "default")
	t.Cleanup(func() { h.remove(t, "debian") })
	h.mustCtl(t, "vm", "start", "debian")
	login := func() *console {
		c := h.console(t, "debian")
		c.prompt("login: ", patience)
		c.say("root")
		c.prompt("~#", patience)
		return c
	}
	c := login()
	c.say("ping -c 1 -W 5 10.88.0.1 | grep -c '1 received' | sed s/^/gateway=/")
	c.expect("gateway=1", patience)
	c.say("nproc | sed s/^/cpus=/; lsblk -bno SIZE /dev/vda | sed s/^/size=/")
	c.expect("cpus=2", patience)
	c.expect(fmt.Sprintf("size=%d", 2<<30), patience)
	c.say("echo kept-over-stop > /root/note && sync && echo written=$?")
	c.expect("written=0", patience)

	h.mustCtl(t, "vm", "stop", "debian", "--grace", "2m")
	h.waitStopped(t, "debian", v1.VirtualMachine_STOP_REASON_POWERED_OFF)
	if out := h.mustCtl(t, "vm", "logs", "debian"); !strings.Contains(out, "login: ") {
		t.Errorf("vm logs of the stopped guest lack its login prompt:\n%s", out)
	}
	h.mustCtl(t, "vm", "set-cpus", "debian", "1")
	h.mustCtl(t, "vm", "start", "debian")
	c = login()
	c.say("sed s/^/note=/ /root/note; nproc | sed s/^/cpus=/")
	c.expect("note=kept-over-stop", patience)
	c.expect("cpus=1", patience)
	h.mustCtl(t, "vm", "stop", "debian", "--grace", "2m")
}

func TestFourGuestsAtOnce(t *testing.T) {
	h := sharedHost(t)
	var consoles []*console
	addresses := map[string]bool{}
	for i := range 4 {
		id := fmt.Sprintf("four-%d", i)
		h.create(t, id, testVM(""))
		t.Cleanup(func() { h.remove(t, id) })
		h.boot(t, id)
		consoles = append(consoles, h.console(t, id))
	}
	for _, c := range consoles {
		line := c.expect("TESTGUEST ready", patience)
		_, nic, _ := strings.Cut(line, "net=")
		address, gateway, ok := strings.Cut(nic, ",")
		if !ok || addresses[address] {
			t.Fatalf("%s: %q: want an address of its own and a gateway", c.id, line)
		}
		addresses[address] = true
		c.ask("ping " + gateway)
		if got := h.vm(t, c.id).NetworkInterfaces[0].IpAddress; got != address {
			t.Errorf("%s: the API says %q, the guest %q", c.id, got, address)
		}
	}
	for _, c := range consoles {
		h.stop(t, c.id, false)
		h.waitStopped(t, c.id, v1.VirtualMachine_STOP_REASON_POWERED_OFF)
	}
}

func TestGuestReachesTheWorldButNotTheHost(t *testing.T) {
	h := sharedHost(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			fmt.Fprint(c, "echo-", line)
			c.Close()
		}
	}()
	h.create(t, "world", testVM(""))
	t.Cleanup(func() { h.remove(t, "world") })
	h.boot(t, "world")
	c := h.console(t, "world")
	c.expect("TESTGUEST ready", patience)
	// 10.0.2.2 is this machine, as QEMU's user network shows it to the host.
	if got := c.ask(fmt.Sprintf("tcp 10.0.2.2:%d hello", l.Addr().(*net.TCPAddr).Port)); got != "echo-hello" {
		t.Errorf("through NAT came %q, want echo-hello", got)
	}
	for _, address := range []string{"10.88.0.1:8443", "10.0.2.15:8443"} {
		c.say("tcp " + address + " hello")
		c.expect("ERR tcp", patience)
	}
}

func TestEnds(t *testing.T) {
	h := sharedHost(t)
	for _, c := range []struct {
		name, cmdline, say string
		want               v1.VirtualMachine_StopReason
	}{
		{"power-off", "", "poweroff", v1.VirtualMachine_STOP_REASON_POWERED_OFF},
		{"halt", "", "halt", v1.VirtualMachine_STOP_REASON_HALTED},
		{"triple-fault", "reboot=t", "reboot", v1.VirtualMachine_STOP_REASON_TRIPLE_FAULT},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := "end-" + c.name
			h.create(t, id, testVM(c.cmdline))
			t.Cleanup(func() { h.remove(t, id) })
			h.boot(t, id)
			con := h.console(t, id)
			con.expect("TESTGUEST ready", patience)
			con.say(c.say)
			h.waitStopped(t, id, c.want)
		})
	}
	t.Run("reset", func(t *testing.T) {
		h.create(t, "end-reset", testVM(""))
		t.Cleanup(func() { h.remove(t, "end-reset") })
		h.boot(t, "end-reset")
		con := h.console(t, "end-reset")
		con.expect("TESTGUEST ready", patience)
		before := h.vm(t, "end-reset").StartTime.AsTime()
		con.say("reboot")
		for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			vm := h.vm(t, "end-reset")
			if vm.State == v1.VirtualMachine_STATE_RUNNING && vm.StartTime.AsTime().After(before) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after a reset the guest is %v (%v), want it running again", vm.State, vm.StopReason)
			}
		}
		h.console(t, "end-reset").expect("TESTGUEST ready", patience)
	})
	t.Run("killed", func(t *testing.T) {
		h.create(t, "end-killed", testVM(""))
		t.Cleanup(func() { h.remove(t, "end-killed") })
		h.boot(t, "end-killed")
		h.stop(t, "end-killed", true)
		h.waitStopped(t, "end-killed", v1.VirtualMachine_STOP_REASON_KILLED)
	})
	t.Run("VMM killed", func(t *testing.T) {
		h.create(t, "end-lost", testVM(""))
		t.Cleanup(func() { h.remove(t, "end-lost") })
		h.boot(t, "end-lost")
		for _, pid := range h.pids(t, "ashlar-vmm") {
			h.shell(t, "kill -9 "+pid)
		}
		h.waitStopped(t, "end-lost", v1.VirtualMachine_STOP_REASON_LOST)
	})
}

func TestBigGuest(t *testing.T) {
	h := newHost(t, options{args: []string{"-m", "8G"}})
	vm := testVM("")
	vm.Cpus, vm.MemoryBytes = 4, 5<<30
	h.create(t, "big", vm)
	h.boot(t, "big")
	c := h.console(t, "big")
	line := c.expect("TESTGUEST ready", patience)
	var cpus, mem int
	if _, err := fmt.Sscanf(line, "TESTGUEST ready cpus=%d mem=%dMiB", &cpus, &mem); err != nil || cpus != 4 || mem < 4800 || mem > 5120 {
		t.Errorf("the guest says %q (%v), want 4 CPUs and about 5 GiB", line, err)
	}
}

func TestRefusedAndNothingLeftBehind(t *testing.T) {
	h := sharedHost(t)
	kernel, err := os.ReadFile(filepath.Join(top, "out/guest-bzImage"))
	if err != nil {
		t.Fatal(err)
	}
	h.uploadBytes(t, "truncated", kernel[:len(kernel)/3])
	h.uploadBytes(t, "garbage", []byte(strings.Repeat("no kernel at all\n", 4096)))
	h.create(t, "refused-name", testVM(""))
	t.Cleanup(func() { h.remove(t, "refused-name") })
	left := func() string {
		return h.shell(t, "ls /data/guests /sys/fs/cgroup/guests /run/ashlar/guests /sys/class/net | sort")
	}
	before := left()
	_, err = h.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.CreateVirtualMachineRequest{VirtualMachineId: "refused-name", VirtualMachine: testVM("")}))
	if connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("a name in use gives %v, want ALREADY_EXISTS", err)
	}
	for _, c := range []struct {
		name string
		edit func(*v1.VirtualMachine)
		want string
	}{
		{"truncated kernel", func(vm *v1.VirtualMachine) { vm.Boot.Kernel = "images/truncated" }, "kernel"},
		{"no kernel", func(vm *v1.VirtualMachine) { vm.Boot.Kernel = "images/garbage" }, "kernel"},
		{"more memory than the host has", func(vm *v1.VirtualMachine) { vm.MemoryBytes = 64 << 30 }, "memory"},
		{"too little memory for the kernel", func(vm *v1.VirtualMachine) { vm.MemoryBytes = 32 << 20 }, "memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			vm := testVM("")
			c.edit(vm)
			req := &v1.CreateVirtualMachineRequest{VirtualMachineId: "refused", VirtualMachine: vm}
			_, err := h.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(req))
			if err == nil {
				var r *connect.Response[v1.Operation]
				r, err = h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/refused"}))
				if err == nil {
					err = h.done(t, r.Msg)
				}
				h.remove(t, "refused")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that speaks of %s", err, c.want)
			}
			if after := left(); after != before {
				t.Errorf("left behind:\n%s\nbefore it was:\n%s", after, before)
			}
		})
	}
}

func TestUnreadableDiskIsRefused(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "no-disk", testVM("", &v1.Disk{SizeBytes: 8 << 20}, &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "no-disk") })
	dir := "/data/guests/" + h.vm(t, "no-disk").Uid
	if got := h.shell(t, "ls "+dir); !strings.Contains(got, "disk-0") || !strings.Contains(got, "disk-1") {
		t.Fatalf("the guest's folder holds %q, want disk-0 and disk-1", got)
	}
	start := func() error {
		r, err := h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/no-disk"}))
		if err != nil {
			return err
		}
		return h.done(t, r.Msg)
	}
	h.shell(t, ": > "+dir+"/disk-0")
	if err := start(); err == nil || !strings.Contains(err.Error(), "disk 0") {
		t.Errorf("start with an empty disk gives %v, want an error that speaks of disk 0", err)
	}
	h.shell(t, "truncate -s 8M "+dir+"/disk-0")
	h.shell(t, "rm "+dir+"/disk-1")
	if err := start(); err == nil || !strings.Contains(err.Error(), "disk 1") {
		t.Errorf("start without the second disk gives %v, want an error that speaks of disk 1", err)
	}
	if vm := h.vm(t, "no-disk"); vm.State != v1.VirtualMachine_STATE_STOPPED {
		t.Errorf("the guest is %v, want it stopped", vm.State)
	}
}
