package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/programs"
)

// wiredName is the stable name of the lab's NIC with SR-IOV.
const wiredName = "mac-525400a50002"

// link waits until the link of the NIC with SR-IOV is as it should be.
func (h *host) link(t testing.TB, what string, so func(*v1.Link) bool) *v1.Link {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r, err := h.Links.GetLink(within(t, time.Minute), connect.NewRequest(&v1.GetLinkRequest{Name: "links/" + wiredName}))
		if err == nil && so(r.Msg) {
			return r.Msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("the link is never %s: %v, %v", what, r, err)
		}
	}
}

// setVFsForBoot sets virtual functions that are to be there after a boot.
func (h *host) setVFsForBoot(t testing.TB) {
	t.Helper()
	h.mustCtl(t, "device", "set-vfs", wiredName, "3")
}

// checkVFsAfterBoot sees that they are.
func (h *host) checkVFsAfterBoot(t testing.TB) {
	t.Helper()
	h.link(t, "with its virtual functions after a boot", func(l *v1.Link) bool { return len(l.Functions) == 3 && l.Carrier })
}

// withFunctions gives the NIC two virtual functions until the test ends, and says how to make a virtual
// machine with one of them.
func (h *host) withFunctions(t testing.TB, ids ...string) (create func(id, settings string, more ...string)) {
	t.Helper()
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	t.Cleanup(func() {
		for _, id := range ids {
			h.remove(t, id)
		}
		h.mustCtl(t, "device", "set-vfs", wiredName, "0")
	})
	if text := h.mustCtl(t, "device", "set-vfs", wiredName, "2"); !strings.Contains(text, "has 2 virtual functions") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	return func(id, settings string, more ...string) {
		t.Helper()
		h.mustCtl(t, append([]string{"vm", "create", id, "--memory", "128MiB", "--kernel", "guest-kernel", "--initramfs", "testguest",
			"--cmdline", "console=ttyS0 quiet", "--vf", wiredName + settings}, more...)...)
	}
}

// A guest has a virtual function of a NIC with what the host has set for it, past the deaths of core and
// control; when it has stopped the function is free, and has no settings any more.
func TestVirtualFunctions(t *testing.T) {
	h := sharedHost(t)
	create := h.withFunctions(t, "wired")
	if text, err := h.ctl("device", "set-vfs", wiredName, "8"); err == nil || !strings.Contains(text, "at most 7") {
		t.Errorf("too many: %v\n%s", err, text)
	}
	l := h.link(t, "up, with its functions", func(l *v1.Link) bool { return l.Carrier && len(l.Functions) == 2 })
	if l.Driver != "igb" || l.SpeedMbps != 1000 || l.Duplex != v1.Link_DUPLEX_FULL || len(l.Uses) != 0 || l.TotalFunctions != 7 {
		t.Errorf("the link is %v", l)
	}
	create("wired", ",rate=500")
	mac := h.vm(t, "wired").Devices[0].VirtualFunction.GetMacAddress()
	if text, err := h.ctl("vm", "create", "third", "--kernel", "guest-kernel", "--vf", wiredName+",mac="+mac); err == nil || !strings.Contains(text, "in use") {
		t.Errorf("an address twice: %v\n%s", err, text)
	}
	h.mustCtl(t, "vm", "start", "wired")
	is := func(l *v1.Link) bool {
		return len(l.Functions) == 2 && l.Functions[0].VirtualMachine == "virtualMachines/wired" && l.Functions[0].Settings.MacAddress == mac
	}
	l = h.link(t, "the guest's", is)
	if s := l.Functions[0].Settings; s.MaxRateMbps != 500 || !s.GetSpoofCheck() || s.Trust {
		t.Errorf("the settings are %v", s)
	}
	if text, err := h.ctl("device", "set-vfs", wiredName, "3"); err == nil || !strings.Contains(text, "in use by a guest") {
		t.Errorf("other functions, from below guests: %v\n%s", err, text)
	}
	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	h.link(t, "as before", is)
	h.stop(t, "wired", true)
	h.link(t, "free again", func(l *v1.Link) bool {
		return len(l.Functions) == 2 && l.Functions[0].VirtualMachine == "" && l.Functions[0].Settings.MacAddress == "" && l.Functions[0].Settings.MaxRateMbps == 0
	})
	if got := h.vm(t, "wired").Devices[0].VirtualFunction.GetMacAddress(); got != mac {
		t.Errorf("the address was %s and is %s", mac, got)
	}
}

// Guests with virtual functions reach the network behind the NIC, and each other.
func TestVirtualFunctionsReach(t *testing.T) {
	h := sharedHost(t)
	create := h.withFunctions(t, "wired", "twin")
	create("wired", "")
	create("twin", ",mac=02:00:00:00:00:77")
	h.mustCtl(t, "vm", "start", "wired")
	one, _ := h.onWire(t, "wired")
	h.mustCtl(t, "vm", "start", "twin")
	_, ip := h.onWire(t, "twin")
	one.ask("ping " + ip)
}

// Guests of two processors each, one on pages of 2 MiB and one on pages of 1 GiB, send each
// other what iperf3 has, by virtual functions, and so do guests and host, which has the physical
// function.
func TestVirtualFunctionsUnderLoad(t *testing.T) {
	disk, err := programs.HostImage(func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	// Of 6 GiB the kernel's own pages leave no whole one of 1 GiB in every other boot.
	h := newHost(t, options{memory: "10G", args: []string{
		"-drive", "if=none,id=programs,format=raw,readonly=on,file=" + disk, "-device", "nvme,serial=programs,drive=programs",
	}})
	h.mustCtl(t, "hugepages", "set", "1GiB", "1", "--node", "0")
	h.mustCtl(t, "hugepages", "set", "2MiB", "64")
	create := h.withFunctions(t, "small-pages", "large-pages")
	h.programs(t)
	faults := h.iommuFaults(t)
	create("small-pages", "", "--cpus", "2", "--memory", "128MiB,pages=2MiB", "--disk", "programs")
	create("large-pages", "", "--cpus", "2", "--memory", "1GiB,pages=1GiB", "--disk", "programs")
	var guests []*console
	var addresses []string
	for _, id := range []string{"small-pages", "large-pages"} {
		h.mustCtl(t, "vm", "start", id)
		c, ip := h.onWire(t, id)
		c.serves(firstPort)
		guests, addresses = append(guests, c), append(addresses, ip)
	}
	for i, c := range guests {
		for _, way := range []string{"", " -R"} {
			begin := time.Now()
			c.ask(fmt.Sprintf("run /dev/vda /usr/bin/iperf3 -c %s -p %d -P 2 -n 4M%s", addresses[1-i], firstPort, way))
			t.Logf("%s%s: 8 MiB after %v", c.id, way, time.Since(begin))
		}
	}
	name := h.onWireItself(t)
	for i, c := range guests {
		for _, way := range []string{"", " -R"} {
			begin := time.Now()
			// What went wrong is in the answer, too.
			out := h.shell(t, fmt.Sprintf("chroot /tmp/programs /usr/bin/iperf3 -c %s -p %d -P 2 -n 4M%s", addresses[i], firstPort, way))
			if !strings.Contains(out, "iperf Done.") {
				t.Errorf("the host by %s and %s%s:\n%s", name, c.id, way, out)
			}
			t.Logf("the host and %s%s: 8 MiB after %v", c.id, way, time.Since(begin))
		}
	}
	if now := h.iommuFaults(t); now != faults {
		t.Errorf("the IOMMU has met %d faults, then %d", faults, now)
	}
}

// onWireItself gives the host an address on the network behind the NIC with SR-IOV, by its physical
// function, whose name it returns, and the disk with iperf3.
func (h *host) onWireItself(t testing.TB) (name string) {
	t.Helper()
	r, err := h.Links.GetLink(within(t, time.Minute), connect.NewRequest(&v1.GetLinkRequest{Name: "links/" + wiredName}))
	if err != nil {
		t.Fatal(err)
	}
	name = strings.TrimPrefix(r.Msg.Name, "links/")
	h.shell(t, "ip addr add 10.0.3.200/24 dev "+name)
	h.shell(t, "mkdir /tmp/programs; for d in /sys/class/nvme/*; do if grep -q programs $d/serial; then mount -t xfs -o ro,norecovery /dev/$(basename $d)n1 /tmp/programs; fi; done")
	h.shell(t, "mount -t none -o bind /dev /tmp/programs/dev; mount -t tmpfs tmpfs /tmp/programs/tmp") // iperf3 wants both
	if out := h.shell(t, "ping -c 1 "+wireGateway+"; ip addr; mount"); !strings.Contains(out, "10.0.3.200") || !strings.Contains(out, "/tmp/programs") {
		t.Fatalf("the host has no address by %s, or no iperf3:\n%s", name, out)
	}
	return name
}

// wireGateway is who answers behind the lab's NIC with SR-IOV.
const wireGateway = "10.0.3.2"

// onWire waits until a guest that has been started reaches the network behind the NIC by its virtual
// function, the first of its devices, and returns its address there.
func (h *host) onWire(t testing.TB, id string) (c *console, ip string) {
	t.Helper()
	c = h.console(t, id)
	_, got, _ := strings.Cut(c.expect("TESTGUEST ready", patience), "net=")
	mac := h.vm(t, id).Devices[0].VirtualFunction.GetMacAddress()
	name := c.ask("nic " + mac)
	if name == "none" {
		t.Fatalf("%s has no network device with the address %s of its function; eth0 has %s", id, mac, c.ask("read /sys/class/net/eth0/address"))
	}
	if !strings.HasPrefix(got, "10.0.3.") { // its link was not up yet, or eth0 is another one
		got = c.ask("dhcp " + name)
	}
	ip, gw, _ := strings.Cut(strings.TrimSpace(got), ",")
	if !strings.HasPrefix(ip, "10.0.3.") || gw != wireGateway {
		t.Fatalf("%s has %q, by %q; carrier of %s: %s", id, ip, gw, name, c.ask("read /sys/class/net/"+name+"/carrier"))
	}
	c.ask("ping " + wireGateway)
	return c, ip
}
