package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
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

// Guests have virtual functions of a NIC: they reach the network behind it and each other, with
// what the host has set for them, past the deaths of core and control.
func TestVirtualFunctions(t *testing.T) {
	h := sharedHost(t)
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	t.Cleanup(func() {
		for _, id := range []string{"wired", "twin"} {
			h.remove(t, id)
		}
		h.mustCtl(t, "device", "set-vfs", wiredName, "0")
	})
	if text, err := h.ctl("device", "set-vfs", wiredName, "8"); err == nil || !strings.Contains(text, "at most 7") {
		t.Errorf("too many: %v\n%s", err, text)
	}
	if text := h.mustCtl(t, "device", "set-vfs", wiredName, "2"); !strings.Contains(text, "has 2 virtual functions") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	l := h.link(t, "up, with its functions", func(l *v1.Link) bool { return l.Carrier && len(l.Functions) == 2 })
	if l.Driver != "igb" || l.SpeedMbps != 1000 || l.Duplex != v1.Link_DUPLEX_FULL || len(l.Uses) != 0 || l.TotalFunctions != 7 {
		t.Errorf("the link is %v", l)
	}
	create := func(id, vf string) {
		h.mustCtl(t, "vm", "create", id, "--memory", "128MiB", "--kernel", "guest-kernel", "--initramfs", "testguest", "--cmdline", "console=ttyS0 quiet", "--vf", wiredName+vf)
	}
	create("wired", ",rate=500")
	create("twin", ",mac=02:00:00:00:00:77")
	if text, err := h.ctl("vm", "create", "third", "--kernel", "guest-kernel", "--vf", wiredName+",mac=02:00:00:00:00:77"); err == nil || !strings.Contains(text, "in use") {
		t.Errorf("an address twice: %v\n%s", err, text)
	}
	mac := h.vm(t, "wired").Devices[0].VirtualFunction.GetMacAddress()
	address := func(id string) (*console, string) {
		h.mustCtl(t, "vm", "start", id)
		c := h.console(t, id)
		line := c.expect("TESTGUEST ready", patience)
		_, net, _ := strings.Cut(line, "net=")
		if !strings.HasPrefix(net, "10.0.3.") {
			net = c.ask("dhcp eth0")
		}
		ip, gw, _ := strings.Cut(strings.TrimSpace(net), ",")
		if !strings.HasPrefix(ip, "10.0.3.") || gw != "10.0.3.2" {
			for _, what := range []string{"carrier", "address", "statistics/tx_packets", "statistics/rx_packets"} {
				t.Logf("%s: %s is %s", id, what, c.ask("read /sys/class/net/eth0/"+what))
			}
			t.Errorf("%s has %q, by %q", id, ip, gw)
			return c, ip
		}
		c.ask("ping 10.0.3.2")
		return c, ip
	}
	one, _ := address("wired")
	if got := one.ask("nic " + mac); got != "eth0" {
		t.Errorf("the guest has %s with the address %s", got, mac)
	}
	two, ip := address("twin")
	if t.Failed() {
		t.Log(h.mustCtl(t, "link", "get", wiredName))
		t.Log(h.shell(t, "cat /sys/class/net/eth1/statistics/rx_packets /sys/class/net/eth1/statistics/tx_packets; dmesg | grep -i igb | tail -20"))
		t.FailNow()
	}
	if got := two.ask("nic 02:00:00:00:00:77"); got != "eth0" {
		t.Errorf("the other guest has %s with its address", got)
	}
	one.ask("ping " + ip)

	l = h.link(t, "that of both guests", func(l *v1.Link) bool {
		return len(l.Functions) == 2 && l.Functions[0].VirtualMachine == "virtualMachines/wired" && l.Functions[1].VirtualMachine == "virtualMachines/twin"
	})
	if s := l.Functions[0].Settings; s.MacAddress != mac || s.MaxRateMbps != 500 || !s.GetSpoofCheck() || s.Trust {
		t.Errorf("the settings are %v", s)
	}
	if text, err := h.ctl("device", "set-vfs", wiredName, "3"); err == nil || !strings.Contains(text, "in use by a guest") {
		t.Errorf("other functions, from below guests: %v\n%s", err, text)
	}
	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	h.fresh(t, "wired").ask("ping " + ip)
	h.link(t, "as before", func(l *v1.Link) bool {
		return len(l.Functions) == 2 && l.Functions[0].VirtualMachine == "virtualMachines/wired" && l.Functions[0].Settings.MacAddress == mac
	})
	h.stop(t, "wired", true)
	h.link(t, "free again", func(l *v1.Link) bool {
		return len(l.Functions) == 2 && l.Functions[0].VirtualMachine == "" && l.Functions[0].Settings.MacAddress == "" && l.Functions[0].Settings.MaxRateMbps == 0
	})
	if got := h.vm(t, "wired").Devices[0].VirtualFunction.GetMacAddress(); got != mac {
		t.Errorf("the address was %s and is %s", mac, got)
	}
}
