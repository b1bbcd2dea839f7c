package render

import (
	"fmt"
	"slices"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// Topology is a picture of the host, node by node.
func Topology(t *ashlarv1.HostTopology) *Rows {
	r := &Rows{}
	for _, n := range t.GetNodes() {
		r.Add(fmt.Sprintf("Node %d:", n.GetId()), strings.Join(nonEmpty(
			size.Format(n.GetMemoryBytes()), size.Format(n.GetMemoryAvailableBytes())+" available",
			counted("CPU", n.GetCpus()), "distances "+strings.Trim(fmt.Sprint(n.GetDistances()), "[]")), ", "))
		for _, p := range n.GetPools() {
			r.Add("  Pages of "+size.Format(p.GetPageBytes())+":", fmt.Sprintf("%d, %d free", p.GetTotalPages(), p.GetFreePages()))
		}
		cores(r, t, func(c *ashlarv1.HostTopology_Core) bool { return c.GetNode() == n.GetId() })
		caches(r, t, n.GetCpus())
		for _, d := range n.GetPciDevices() {
			r.Add("  PCI "+d.GetAddress()+":", fmt.Sprintf("%04x:%04x, %s", d.GetVendorId(), d.GetDeviceId(), deviceClass(d.GetClassCode())))
		}
	}
	cores(r, t, func(c *ashlarv1.HostTopology_Core) bool { return c.GetNode() < 0 })
	guestCPUs(r, t.GetGuestCpus())
	return r
}

// cores adds a line for each socket that has cores which are wanted.
func cores(r *Rows, t *ashlarv1.HostTopology, wanted func(*ashlarv1.HostTopology_Core) bool) {
	var sockets []int32
	words := map[int32][]string{}
	for _, c := range t.GetCores() {
		if !wanted(c) {
			continue
		}
		if s := c.GetSocket(); !slices.Contains(sockets, s) {
			sockets = append(sockets, s)
		}
		words[c.GetSocket()] = append(words[c.GetSocket()], strings.ReplaceAll(Ranges(c.GetCpus()), " ", "+"))
	}
	for _, s := range sockets {
		noun := "cores"
		if len(words[s]) == 1 {
			noun = "core"
		}
		r.Add(fmt.Sprintf("  Socket %d:", s), fmt.Sprintf("%d %s: %s", len(words[s]), noun, strings.Join(words[s], " ")))
	}
}

// caches adds a line for each kind of cache of CPUs.
func caches(r *Rows, t *ashlarv1.HostTopology, cpus []int32) {
	type kind struct {
		level int32
		name  string
		bytes int64
	}
	var kinds []kind
	count := map[kind]int{}
	for _, c := range t.GetCaches() {
		if len(c.GetCpus()) == 0 || !slices.Contains(cpus, c.GetCpus()[0]) {
			continue
		}
		k := kind{c.GetLevel(), strings.ToLower(c.GetType()), c.GetSizeBytes()}
		if count[k] == 0 {
			kinds = append(kinds, k)
		}
		count[k]++
	}
	for _, k := range kinds {
		r.Add(fmt.Sprintf("  L%d, %s:", k.level, k.name), fmt.Sprintf("%d x %s", count[k], size.Format(k.bytes)))
	}
}

// deviceClass is a PCI class code in words, as far as guests may want such devices (PCI
// Code and ID Assignment Specification section 1).
func deviceClass(code int32) string {
	words := map[int32]string{
		0x01: "storage", 0x02: "network", 0x03: "display", 0x06: "bridge", 0x08: "system", 0x0b: "processor",
		0x0c: "serial bus", 0x12: "accelerator",
	}
	if w, ok := words[code>>16]; ok {
		return w
	}
	return fmt.Sprintf("class %06x", code)
}
