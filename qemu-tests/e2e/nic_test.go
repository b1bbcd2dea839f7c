package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// paced has a guest move so many bytes by a command that answers with the time it took, and
// holds that they passed at a rate with a burst, 10 % more or less. A machine that has
// other things to do than that takes longer: it gets another try.
func (c *console) paced(command string, bytes, rate, burst float64) {
	c.t.Helper()
	for try := 1; ; try++ {
		c.say(command)
		line := c.expect("OK "+strings.Fields(command)[0], patience)
		words := strings.Fields(line)
		ns, err := strconv.ParseInt(words[len(words)-1], 10, 64)
		if err != nil {
			c.t.Fatalf("%s: %q: %v", command, line, err)
		}
		seconds := float64(ns) / 1e9
		c.t.Logf("%s: %.0f bytes in %.2f s, %.3f of the limit", command, bytes, seconds, bytes/seconds/rate)
		switch {
		case (bytes-burst)/seconds > 1.1*rate:
			c.t.Fatalf("%s: %.0f bytes in %.2f s are beyond %.0f a second", command, bytes, seconds, rate)
		case bytes/seconds >= 0.9*rate:
			return
		case try == 3:
			c.t.Fatalf("%s: %.0f bytes in %.2f s are less than %.0f a second", command, bytes, seconds, rate)
		}
	}
}

// carrier waits until the guest sees its link up or down.
func (c *console) carrier(want string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); c.ask("read /sys/class/net/eth0/carrier") != want; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("the guest does not see carrier %s", want)
		}
	}
}

// network is a guest's address and gateway once it is up.
func (c *console) network() (address, gateway string) {
	c.t.Helper()
	line := c.expect("TESTGUEST ready", patience)
	_, nic, _ := strings.Cut(line, "net=")
	address, gateway, ok := strings.Cut(nic, ",")
	if !ok {
		c.t.Fatalf("%q: want an address and a gateway", line)
	}
	return address, gateway
}

// TestNetworkLimitsAndLink has two guests move data, one of which has limits, and pulls its
// cable.
func TestNetworkLimitsAndLink(t *testing.T) {
	const rate, burst = 128 << 10, 128 << 10 // well below what the lab's one emulated CPU can do
	h := sharedHost(t)
	h.create(t, "peer", testVM(""))
	t.Cleanup(func() { h.remove(t, "peer") })
	vm := testVM("")
	both := &v1.NetworkLimits{BytesPerSecond: rate, BurstBytes: burst}
	vm.NetworkInterfaces[0].Limits = &v1.NetworkInterfaceLimits{Receive: both, Transmit: both}
	h.create(t, "paced", vm)
	t.Cleanup(func() { h.remove(t, "paced") })
	h.boot(t, "peer")
	h.boot(t, "paced")
	peer, c := h.console(t, "peer"), h.console(t, "paced")
	address, _ := peer.network()
	peer.ask("serve 9")
	_, gateway := c.network()
	stream := func(what string, kib int) string { return fmt.Sprintf("stream %s:9 %s %d", address, what, kib) }
	paced := func(what string, kib int, rate float64) {
		t.Helper()
		// What TCP sends has headers: 54 bytes for 1460 of data.
		c.paced(stream(what, kib), float64(kib<<10)*1514/1460, rate, burst)
	}
	throttled := func() (rx, tx int64) {
		n := h.counters(t, "paced").Devices
		return n["nic0.rx_throttled"], n["nic0.tx_throttled"]
	}

	paced("receive", 1024, rate)
	paced("send", 1024, rate)
	rx, tx := throttled()
	if rx == 0 || tx == 0 {
		t.Errorf("throttled: %d received, %d sent; want some of each", rx, tx)
	}
	h.mustCtl(t, "vm", "limit-nic", "paced", "0", "--rx", "64KiB/s", "--rx-burst", "128KiB")
	paced("receive", 512, rate/2)
	h.mustCtl(t, "vm", "limit-nic", "paced", "0")
	rx1, tx1 := throttled()
	for _, what := range []string{"receive", "send"} {
		c.say(stream(what, 512))
		c.expect("OK stream", patience)
	}
	if rx2, tx2 := throttled(); rx1 < rx || tx1 < tx || rx2 != rx1 || tx2 != tx1 {
		t.Errorf("throttled: %d, %d with limits, then %d, %d, and %d, %d without", rx, tx, rx1, tx1, rx2, tx2)
	}

	c.carrier("1")
	h.mustCtl(t, "vm", "set-link", "paced", "0", "down")
	c.carrier("0")
	c.say("ping " + gateway)
	c.expect("ERR ping", patience)
	before := h.counters(t, "paced").Devices
	peer.ask("ping " + gateway) // whose link is up
	if n := h.counters(t, "paced").Devices; n["nic0.rx_packets"] != before["nic0.rx_packets"] || n["nic0.tx_packets"] != before["nic0.tx_packets"] {
		t.Errorf("packets have passed a link that is down: %v, then %v", before, n)
	}
	h.mustCtl(t, "vm", "set-link", "paced", "0", "up")
	c.carrier("1")
	c.say("ping " + gateway)
	c.expect("OK ping", patience)

	// It is down over a reset, and the new guest gets its address when it is up.
	h.mustCtl(t, "vm", "set-link", "paced", "0", "down")
	h.mustCtl(t, "vm", "reset", "paced")
	if !h.vm(t, "paced").NetworkInterfaces[0].LinkDown {
		t.Error("the link is not recorded as down")
	}
	if up := strings.Fields(h.shell(t, "cat /sys/class/net/gtap*/carrier 2>/dev/null")); len(up) != 1 {
		t.Errorf("taps that are up have carriers %v, want one of two", up)
	}
	h.mustCtl(t, "vm", "set-link", "paced", "0", "up")
	h.console(t, "paced").network()
}
