package render

import (
	"fmt"
	"strconv"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// nic is everything about a network interface.
func nic(n *ashlarv1.NetworkInterface) string {
	words := nonEmpty(n.GetNetwork(), n.GetMacAddress(), n.GetIpAddress())
	if n.GetLinkDown() {
		words = append(words, "link down")
	}
	words = append(words, networkLimits("receives", n.GetLimits().GetReceive())...)
	words = append(words, networkLimits("sends", n.GetLimits().GetTransmit())...)
	return strings.Join(words, ", ")
}

// networkLimits says what passes in one direction at most.
func networkLimits(verb string, l *ashlarv1.NetworkLimits) (words []string) {
	if n := l.GetBytesPerSecond(); n > 0 {
		words = append(words, verb+" at most "+size.Format(n)+" a second"+burst(l.GetBurstBytes(), size.Format))
	}
	if n := l.GetPacketsPerSecond(); n > 0 {
		words = append(words, fmt.Sprintf("%s at most %d packets a second", verb, n)+
			burst(l.GetBurstPackets(), func(n int64) string { return strconv.FormatInt(n, 10) }))
	}
	return words
}
