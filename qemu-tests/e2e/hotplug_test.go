package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// until asks the guest over and over, until the answer is there, or is not there any more.
func (c *console) until(command string, there bool) string {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		got := c.ask(command)
		if (got != "none") == there {
			return got
		}
		if time.Now().After(deadline) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("%s: %s; all the guest said:\n%s", command, got, c.text.String())
		}
	}
}

// fresh attaches to a guest's console without what was printed before.
func (h *host) fresh(t testing.TB, id string) *console {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &console{t: t, id: id, stream: h.VirtualMachines.Console(ctx)}
	if err := c.stream.Send(&v1.ConsoleRequest{Name: "virtualMachines/" + id, NoReplay: true}); err != nil {
		t.Fatalf("console of %s: %v", id, err)
	}
	go c.read()
	return c
}

// Disks and network interfaces come and go while the guest runs, also under load and
// past deaths of core and control, and a restart finds what is left.
func TestHotplug(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "plugs", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "plugs") })
	h.boot(t, "plugs")
	c := h.console(t, "plugs")
	c.expect("TESTGUEST ready", patience)
	says := func(want string, args ...string) {
		t.Helper()
		if out := h.mustCtl(t, append([]string{"vm"}, args...)...); strings.TrimSpace(out) != want {
			t.Errorf("vm %s: %q, want %q", strings.Join(args, " "), out, want)
		}
	}
	attach := func() (device string) {
		t.Helper()
		says("plugs has disk 1", "attach-disk", "plugs", "--size", "16MiB")
		return "/dev/" + c.until("disk ashlar-1", true)
	}
	files := func() string {
		return h.shell(t, "ls /data/guests/"+h.vm(t, "plugs").Uid+" /sys/class/net")
	}

	// The guest gives a disk up that it writes to, and loses one that is taken away.
	device := attach()
	c.ask("write " + device + " 3 4")
	c.ask("check " + device + " 3 4")
	if h.counters(t, "plugs").Devices["disk1.written_bytes"] < 4<<20 {
		t.Error("disk1 does not count")
	}
	c.ask("load " + device)
	says("plugs has no disk 1 any more", "detach-disk", "plugs", "1", "--delete-content", "--grace", "3m")
	c.expect("LOAD ends", patience)
	c.until("disk ashlar-1", false)
	if out := files(); strings.Contains(out, "disk-1") {
		t.Errorf("the file of the disk is left behind: %s", out)
	}
	device = attach()
	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	c = h.fresh(t, "plugs")
	c.ask("load " + device)
	says("plugs has no disk 1 any more", "detach-disk", "plugs", "1", "--delete-content", "--force")
	c.expect("LOAD ends", patience)
	c.until("disk ashlar-1", false)

	// A network interface gets an address, and its network.
	says("plugs has network interface 1", "attach-nic", "plugs", "--network", "default")
	name := c.until("nic "+h.vm(t, "plugs").NetworkInterfaces[1].MacAddress, true)
	address, gateway, ok := strings.Cut(c.ask("dhcp "+name), ",")
	if !ok {
		t.Fatalf("DHCP: %s", address)
	}
	c.ask("pingby " + name + " " + gateway)
	if got := h.vm(t, "plugs").NetworkInterfaces[1].IpAddress; got != address {
		t.Errorf("the host tells of the address %q, the guest has %q", got, address)
	}
	mac := h.vm(t, "plugs").NetworkInterfaces[1].MacAddress
	says("plugs has no network interface 1 any more", "detach-nic", "plugs", "1", "--grace", "3m")
	c.until("nic "+mac, false)
	if out := files(); strings.Contains(out, "-1\n") {
		t.Errorf("the tap of the network interface, or a disk, is left behind: %s", out)
	}
	if out, err := h.ctl("vm", "detach-disk", "plugs", "0", "--delete-content"); err == nil || !strings.Contains(out+err.Error(), "stop it first") {
		t.Errorf("the disk of the start: %s, %v", out, err)
	}

	// What is attached stays so.
	c.ask("write " + attach() + " 4 4")
	h.stop(t, "plugs", false)
	says("plugs has network interface 1", "attach-nic", "plugs", "--network", "default")
	says("plugs has no disk 0 any more", "detach-disk", "plugs", "0", "--delete-content")
	h.boot(t, "plugs")
	c = h.console(t, "plugs")
	c.expect("TESTGUEST ready", patience)
	c.ask("check /dev/" + c.until("disk ashlar-1", true) + " 4 4")
	c.until("nic "+h.vm(t, "plugs").NetworkInterfaces[1].MacAddress, true)
	if got := c.ask("disk ashlar-0"); got != "none" {
		t.Errorf("disk 0 is still there: %s", got)
	}
}

// grows waits until counters of a guest have grown.
func (h *host) grows(t testing.TB, id string, counters ...string) {
	t.Helper()
	before := h.counters(t, id).Devices
	for deadline := time.Now().Add(patience); len(counters) > 0; time.Sleep(100 * time.Millisecond) {
		now := h.counters(t, id).Devices
		if now[counters[0]] >= before[counters[0]]+10 {
			counters = counters[1:]
			continue
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s stays at %d, %d before", counters[0], id, now[counters[0]], before[counters[0]])
		}
	}
}

// A network interface comes and goes while packets pass it in both directions: the guest gives
// it up, or it is taken away, and the next one works.
func TestHotplugNICUnderLoad(t *testing.T) {
	h := sharedHost(t)
	peer := h.up(t, "flooder", testVM(""))
	vm := testVM("")
	vm.NetworkInterfaces = nil
	c := h.up(t, "plugs-nics", vm)
	peerAddress, gateway := peer.network()
	c.expect("TESTGUEST ready", patience)
	for _, how := range [][]string{{"--grace", "5m"}, {"--force"}, {"--grace", "5m"}} {
		h.mustCtl(t, "vm", "attach-nic", "plugs-nics", "--network", "default")
		mac := h.vm(t, "plugs-nics").NetworkInterfaces[0].MacAddress
		name := c.until("nic "+mac, true)
		address, _, ok := strings.Cut(c.ask("dhcp "+name), ",")
		if !ok {
			t.Fatalf("DHCP: %s", address)
		}
		c.ask("ping " + gateway)
		c.ask("flood " + name + " " + peerAddress + ":9")
		peer.ask("flood eth0 " + address + ":9")
		h.grows(t, "plugs-nics", "nic0.tx_packets", "nic0.rx_packets")
		h.mustCtl(t, append([]string{"vm", "detach-nic", "plugs-nics", "0"}, how...)...)
		c.expect("FLOOD ends", patience)
		c.until("nic "+mac, false)
		if n := h.vm(t, "plugs-nics").NetworkInterfaces; len(n) != 0 {
			t.Errorf("detached %s, the network interface is still there: %v", how, n)
		}
	}
	h.stop(t, "plugs-nics", false)
}
