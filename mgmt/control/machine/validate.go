package machine

import (
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/processor"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Limits of a virtual machine, as the API states them.
const (
	maxCPUs    = 128
	minMemory  = 32 << 20
	maxMemory  = 1 << 40
	pageSize   = 2 << 20
	maxCmdline = 2047
	maxDisks   = 16
	maxNICs    = 8
	maxDisk    = image.MaxSize
	sectorSize = 512
	growUnit   = 4096 // of the new size of a disk
)

// A checker collects what is wrong with a request.
type checker struct {
	wrong  []refuse.Violation
	images *image.Manager
	root   string // field of the request that is checked; "" is virtual_machine
}

func (c *checker) bad(field, format string, args ...any) {
	root := c.root
	if root == "" {
		root = "virtual_machine"
	}
	c.wrong = append(c.wrong, refuse.Violation{Field: root + field, Description: fmt.Sprintf(format, args...)})
}

// validate checks all of a request and makes the record of it; MAC addresses that the
// host is to assign are still missing.
func (g *Manager) validate(req *ashlarv1.CreateVirtualMachineRequest, host *hostcall.HostStatus) (store.VM, error) {
	c := &checker{images: g.images}
	if !idForm.MatchString(req.VirtualMachineId) {
		c.bad("_id", "write 1 to 63 lower-case letters, digits and -, starting with a letter")
	}
	vm := req.VirtualMachine
	if vm == nil {
		c.bad("", "is missing: say cpus, memory_bytes and boot")
		return store.VM{}, refuse.Invalid(c.wrong...)
	}
	if vm.Name != "" && vm.Name != Prefix+req.VirtualMachineId {
		c.bad(".name", "differs from virtual_machine_id: leave it empty")
	}
	rec := store.VM{
		ID: req.VirtualMachineId, UID: newUID(), Phase: store.Creating, CreateTime: time.Now(),
		CPUs: vm.Cpus, MaxCPUs: vm.MaxCpus, MemoryBytes: vm.MemoryBytes, BalloonBytes: vm.BalloonBytes,
		Vsock: vm.Vsock != nil,
	}
	c.size(vm, host)
	c.backing(vm, &rec)
	c.balloon(vm)
	c.board(vm, &rec)
	c.pluggable(vm, &rec)
	c.serial(vm, &rec)
	c.processor(vm, &rec)
	c.numa(vm, &rec)
	c.placement(vm, &rec)
	c.boot(vm.Boot, &rec)
	c.disks(vm.Disks, &rec)
	c.nics(vm.NetworkInterfaces, host, &rec)
	c.slots(vm, &rec)
	if err := g.devices(c, vm, &rec); err != nil {
		return store.VM{}, err
	}
	numberDevices(&rec)
	return rec, refuse.Invalid(c.wrong...)
}

func (c *checker) size(vm *ashlarv1.VirtualMachine, host *hostcall.HostStatus) {
	if vm.Cpus < 1 || vm.Cpus > maxCPUs {
		c.bad(".cpus", "is %d: 1 to %d", vm.Cpus, maxCPUs)
	}
	if n := vm.MaxCpus; n != 0 && (n < vm.Cpus || n < 1 || n > maxCPUs) {
		c.bad(".max_cpus", "is %d: cpus to %d, or 0 for a number that stays", n, maxCPUs)
	}
	switch n := vm.MemoryBytes; {
	case n < minMemory:
		c.bad(".memory_bytes", "is %d: at least %d (32 MiB)", n, minMemory)
	case n > maxMemory:
		c.bad(".memory_bytes", "is %d: at most %d (1 TiB)", n, int64(maxMemory))
	case n%pageSize != 0:
		c.bad(".memory_bytes", "is %d: a multiple of %d (2 MiB)", n, pageSize)
	case host != nil && host.MemoryTotal > 0 && n > host.MemoryTotal:
		c.bad(".memory_bytes", "is %d: the host has %d", n, host.MemoryTotal)
	}
}

// pages are the kinds of pages by their names in the API.
var pages = map[ashlarv1.MemoryBacking_Pages]protocol.Pages{
	ashlarv1.MemoryBacking_PAGES_UNSPECIFIED: "",
	ashlarv1.MemoryBacking_PAGES_TRANSPARENT: protocol.TransparentPages,
	ashlarv1.MemoryBacking_PAGES_4KIB:        protocol.SmallPages,
	ashlarv1.MemoryBacking_PAGES_2MIB:        protocol.Pages2MiB,
	ashlarv1.MemoryBacking_PAGES_1GIB:        protocol.Pages1GiB,
}

// backing checks what the memory is to be made of.
func (c *checker) backing(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	b := vm.MemoryBacking
	if b == nil {
		return
	}
	kind, ok := pages[b.Pages]
	if !ok {
		c.bad(".memory_backing.pages", "is %d, which the host does not know: choose from %s", b.Pages, strings.Join(protocol.AllPages(), ", "))
		return
	}
	rec.Backing = &protocol.Backing{Pages: kind, Populate: b.Populate}
	// What is no multiple of 2 MiB has been said already.
	if n := int64(kind.PoolSize()); n > pageSize && vm.MemoryBytes%pageSize == 0 && vm.MemoryBytes%n != 0 {
		c.bad(".memory_bytes", "is %d: on pages of %s a multiple of %d", vm.MemoryBytes, kind, n)
	}
}

// balloon checks how much memory is asked for, where the memory itself is right.
func (c *checker) balloon(vm *ashlarv1.VirtualMachine) {
	if vm.MemoryBytes < minMemory {
		return
	}
	if wrong := balloonWrong(vm.BalloonBytes, vm.MemoryBytes); wrong != "" {
		c.bad(".balloon_bytes", "%s", wrong)
	}
}

// balloonWrong says what is wrong with a balloon for a machine with that much memory.
func balloonWrong(balloon, memory int64) string {
	const unit = 4096
	most := memory - protocol.BalloonLeaves
	switch {
	case balloon < 0 || balloon > most:
		return fmt.Sprintf("is %d: 0 to %d (memory_bytes less 32 MiB)", balloon, most)
	case balloon%unit != 0:
		return fmt.Sprintf("is %d: a multiple of %d", balloon, unit)
	}
	return ""
}

// processor checks what is asked of the processors.
func (c *checker) processor(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	p := vm.Processor
	if p == nil {
		return
	}
	rec.CPU = &protocol.CPU{
		Model: p.Model, Sockets: int(p.Sockets), Cores: int(p.Cores), Threads: int(p.Threads), HyperV: p.Hyperv,
	}
	if p.Model != "" && !slices.Contains(processor.Models(), p.Model) {
		c.bad(".processor.model", "is %q: choose from %s", p.Model, strings.Join(processor.Models(), ", "))
	}
	if n := max(vm.Cpus, vm.MaxCpus); vm.Cpus >= 1 && n <= maxCPUs {
		asked := processor.Topology{Sockets: int(p.Sockets), Cores: int(p.Cores), Threads: int(p.Threads)}
		if _, err := processor.NewTopology(int(n), asked); err != nil {
			c.bad(".processor", "%v", err)
		}
	}
	if p.HaltPoll != nil {
		d := p.HaltPoll.AsDuration()
		if p.HaltPoll.CheckValid() != nil || d < 0 || d > protocol.HaltPollLimit {
			c.bad(".processor.halt_poll", "is %v: 0 to %v", d, time.Duration(protocol.HaltPollLimit))
			return
		}
		ns := uint64(d)
		rec.CPU.HaltPollNs = &ns
	}
}

// image checks a reference to an image and returns its ID.
func (c *checker) image(field, name string) (id string, r image.Ready) {
	r, wrong := c.images.Use(name)
	if wrong != "" {
		c.bad(field, "%s", wrong)
		return "", r
	}
	return strings.TrimPrefix(name, image.Prefix), r
}

func (c *checker) boot(b *ashlarv1.Boot, rec *store.VM) {
	if b == nil {
		c.bad(".boot", "is missing: say at least boot.kernel")
		return
	}
	if b.Kernel == "" {
		c.bad(".boot.kernel", "is missing: name the image of a kernel, as %sID", image.Prefix)
	} else {
		rec.Kernel, _ = c.image(".boot.kernel", b.Kernel)
	}
	if b.Initramfs != "" {
		rec.Initramfs, _ = c.image(".boot.initramfs", b.Initramfs)
	}
	if len(b.Cmdline) > maxCmdline {
		c.bad(".boot.cmdline", "has %d bytes: at most %d", len(b.Cmdline), maxCmdline)
	}
	if i := strings.IndexFunc(b.Cmdline, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		c.bad(".boot.cmdline", "has a line break or another character that is not printable ASCII at byte %d: leave it out", i)
	}
	rec.Cmdline = b.Cmdline
}

func (c *checker) disks(disks []*ashlarv1.Disk, rec *store.VM) {
	if len(disks) > maxDisks {
		c.bad(".disks", "has %d: at most %d", len(disks), maxDisks)
		return
	}
	for i, d := range disks {
		rec.Disks = append(rec.Disks, c.disk(fmt.Sprintf(".disks[%d]", i), d))
	}
}

func (c *checker) disk(field string, d *ashlarv1.Disk) store.Disk {
	out := store.Disk{Size: d.GetSizeBytes()}
	var wrongField, wrong string
	if out.Limits, wrongField, wrong = parseLimits(d.GetLimits()); wrong != "" {
		c.bad(field+".limits."+wrongField, "%s", wrong)
	}
	var ready image.Ready
	if d.GetImage() != "" {
		if out.Image, ready = c.image(field+".image", d.Image); out.Image == "" {
			return out
		}
	}
	switch {
	case out.Size < 0 || out.Size > maxDisk:
		c.bad(field+".size_bytes", "is %d: up to %d (16 TiB)", out.Size, int64(maxDisk))
	case out.Size == 0 && out.Image == "":
		c.bad(field+".size_bytes", "is missing: a disk without an image needs a size")
	case out.Size%sectorSize != 0:
		c.bad(field+".size_bytes", "is %d: a multiple of %d", out.Size, sectorSize)
	case out.Size == 0 && ready.Size%sectorSize != 0:
		c.bad(field+".size_bytes", "is missing: %s has %d bytes, no multiple of %d", d.Image, ready.Size, sectorSize)
	case out.Size == 0:
		out.Size = ready.Size
	case out.Size < ready.Size:
		c.bad(field+".size_bytes", "is %d: %s has %d bytes already", out.Size, d.Image, ready.Size)
	}
	return out
}

func (c *checker) nics(nics []*ashlarv1.NetworkInterface, host *hostcall.HostStatus, rec *store.VM) {
	if len(nics) > maxNICs {
		c.bad(".network_interfaces", "has %d: at most %d", len(nics), maxNICs)
		return
	}
	for i, n := range nics {
		field := fmt.Sprintf(".network_interfaces[%d]", i)
		out := c.nic(field, n, host)
		if out.MAC != "" && slices.ContainsFunc(rec.NICs, func(o store.NIC) bool { return o.MAC == out.MAC }) {
			c.bad(field+".mac_address", "%s stands there twice", out.MAC)
		}
		rec.NICs = append(rec.NICs, out)
	}
}

func (c *checker) nic(field string, n *ashlarv1.NetworkInterface, host *hostcall.HostStatus) store.NIC {
	out := store.NIC{Network: n.GetNetwork(), LinkDown: n.GetLinkDown()}
	var wrongField, wrong string
	if out.Limits, wrongField, wrong = parseNICLimits(n.GetLimits()); wrong != "" {
		c.bad(field+".limits."+wrongField, "%s", wrong)
	}
	switch {
	case out.Network == "":
		c.bad(field+".network", "is missing: %s", networks(host))
	case host != nil && !slices.Contains(host.Networks, out.Network):
		c.bad(field+".network", "%q is no network of the host: %s", out.Network, networks(host))
	}
	if n.GetMacAddress() != "" {
		mac, wrong := parseMAC(n.MacAddress)
		if wrong != "" {
			c.bad(field+".mac_address", "%s", wrong)
		}
		out.MAC = mac
	}
	return out
}

func networks(host *hostcall.HostStatus) string {
	if host == nil || len(host.Networks) == 0 {
		return "the host has none, its configuration makes them"
	}
	return "choose from " + strings.Join(host.Networks, ", ")
}

// parseMAC returns an address in canonical form, or what is wrong with it.
func parseMAC(s string) (mac, wrong string) {
	hw, err := net.ParseMAC(s)
	switch {
	case err != nil || len(hw) != 6:
		return "", fmt.Sprintf("is %q: write six bytes as 02:00:5e:00:53:01, or leave it empty", s)
	case hw[0]&1 != 0:
		return "", fmt.Sprintf("is %s, a group address: clear the lowest bit of its first byte", s)
	case slices.Max(hw) == 0:
		return "", "is all zero: leave it empty to have one assigned"
	}
	return hw.String(), ""
}

// assignMACs gives an address to each interface and virtual function that has none, and
// refuses those in use. g.mu is held.
func (g *Manager) assignMACs(rec *store.VM) error {
	ownAddresses(rec)
	taken := map[string]bool{}
	for _, a := range addresses(rec) {
		if *a.mac == "" {
			continue
		}
		switch field := "virtual_machine." + a.field + ".mac_address"; {
		case g.macs[*a.mac]:
			return refuse.Field(field, "%s is in use by another virtual machine: choose another one, or leave it empty", *a.mac)
		case taken[*a.mac]:
			return refuse.Field(field, "%s stands there twice: choose another one, or leave it empty", *a.mac)
		}
		taken[*a.mac] = true
	}
	for _, a := range addresses(rec) {
		for try := 0; *a.mac == ""; try++ {
			if mac := derivedMAC(rec.UID, a.place, try); !g.macs[mac] && !taken[mac] {
				*a.mac, taken[mac] = mac, true
			}
		}
	}
	return nil
}

// derivedMAC is a locally administered address (IEEE 802) that depends on the machine
// and the place of the interface alone.
func derivedMAC(uid string, nic, try int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", uid, nic, try))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}
