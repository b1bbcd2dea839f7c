package pci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxInterfaces and maxPath bound what is told of one device. Ports that stand for
// virtual functions (Documentation/networking/representors.rst) may be hundreds.
const (
	maxInterfaces = 8
	maxPath       = 32
)

// Bits of what sysfs says of a BAR (include/linux/ioport.h).
const (
	resourceIO       = 0x00000100
	resourcePrefetch = 0x00002000
	resourceWide     = 0x00100000
)

// Read reads a device. One that is not there any more is an error that wraps
// fs.ErrNotExist.
func (inv *Inventory) Read(address string) (*Device, error) {
	dir := filepath.Join(inv.root, devices, address)
	chain, err := inv.chain(address)
	if err != nil {
		return nil, err
	}
	d := &Device{
		Address: address, Path: path(inv.root, chain), Driver: link(dir, "driver"),
		Vendor: number(dir, "vendor", 0), Device: number(dir, "device", 0),
		SubsystemVendor: number(dir, "subsystem_vendor", 0), SubsystemDevice: number(dir, "subsystem_device", 0),
		Class: number(dir, "class", 0), Revision: number(dir, "revision", 0),
		Node: number(dir, "numa_node", -1), Group: -1,
		ResetMethods: strings.Fields(text(dir, "reset_method")),
		SRIOV:        sriov(dir), Physical: physical(inv.root, address), BARs: bars(dir), Link: linkOf(dir),
		Uses: inv.uses[address],
	}
	if n, err := strconv.Atoi(link(dir, "iommu_group")); err == nil {
		d.Group = n
	}
	if len(chain) > 2 {
		d.Parent = chain[len(chain)-2]
	}
	inv.readConfig(d, chain)
	for _, name := range inv.nets[address][:min(len(inv.nets[address]), maxInterfaces)] {
		d.Interfaces = append(d.Interfaces, Interface{name, ownMAC(filepath.Join(inv.root, "class/net", name))})
	}
	if name := inv.nvmes[address]; name != "" {
		d.NVMe = text(filepath.Join(inv.root, "class/nvme", name), "serial")
	}
	return d, nil
}

// chain is the way from the root bus to a device: `pci0000:00`, bridges, the device.
func (inv *Inventory) chain(address string) ([]string, error) {
	real, err := filepath.EvalSymlinks(filepath.Join(inv.root, devices, address))
	if err != nil {
		return nil, fmt.Errorf("read PCI device %s: %w", address, err)
	}
	parts := strings.Split(real, string(filepath.Separator))
	i := slices.IndexFunc(parts, func(p string) bool { return strings.HasPrefix(p, "pci") && strings.Contains(p, ":") })
	// Between a root bus and its devices may be others: a device of Intel's VMD has a
	// root bus of its own below it.
	for j := i + 1; i >= 0 && j < len(parts); j++ {
		if strings.HasPrefix(parts[j], "pci") && strings.Contains(parts[j], ":") {
			i = j
		}
	}
	if i < 0 || i == len(parts)-1 || len(parts)-i > maxPath {
		return nil, fmt.Errorf("read PCI device %s: its path is %s", address, real)
	}
	return parts[i:], nil
}

// path makes Device.Path of a chain.
func path(root string, chain []string) string {
	last := chain[len(chain)-1]
	if p := physical(root, last); p != nil {
		if real, err := filepath.EvalSymlinks(filepath.Join(root, devices, p.Address)); err == nil && filepath.Base(filepath.Dir(real)) == chain[len(chain)-2] {
			return path(root, append(chain[:len(chain)-1:len(chain)-1], p.Address)) + fmt.Sprintf("-vf%d", p.Index)
		}
	}
	words := []string{strings.TrimPrefix(chain[0], "pci")}
	for _, address := range chain[1:] {
		words = append(words, address[strings.LastIndexByte(address, ':')+1:])
	}
	return strings.Join(words, "-")
}

// text is what is in a file without the line's end; "" where it cannot be read.
func text(path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number is a number of any base that its prefix tells, otherwise where there is none.
func number(dir, name string, otherwise int) int {
	n, err := strconv.ParseInt(text(dir, name), 0, 32)
	if err != nil {
		return otherwise
	}
	return int(n)
}

// link is the name of what a link in a folder leads to; "" where there is none.
func link(dir, name string) string {
	to, err := os.Readlink(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

func sriov(dir string) *SRIOV {
	total := number(dir, "sriov_totalvfs", 0)
	if total <= 0 {
		return nil
	}
	return &SRIOV{Total: total, Enabled: number(dir, "sriov_numvfs", 0)}
}

// physical is whose virtual function a device is; nil where it is none.
func physical(root, address string) *Physical {
	pf := link(filepath.Join(root, devices, address), "physfn")
	if !isAddress(pf) {
		return nil
	}
	dir := filepath.Join(root, devices, pf)
	for _, name := range names(dir) {
		index, ok := strings.CutPrefix(name, "virtfn")
		if n, err := strconv.Atoi(index); ok && err == nil && link(dir, name) == address {
			return &Physical{pf, n}
		}
	}
	return nil
}

// bars reads lines of first address, last address and flags: six BARs, then more.
func bars(dir string) []BAR {
	var out []BAR
	i := 0
	for line := range strings.Lines(text(dir, "resource")) {
		if i == 6 {
			break
		}
		f := strings.Fields(line)
		if len(f) == 3 {
			first, err1 := strconv.ParseUint(f[0], 0, 64)
			last, err2 := strconv.ParseUint(f[1], 0, 64)
			flags, err3 := strconv.ParseUint(f[2], 0, 64)
			if err1 == nil && err2 == nil && err3 == nil && flags != 0 && last > first && last-first < 1<<62 {
				out = append(out, BAR{
					Index: i, Bytes: int64(last-first) + 1,
					IO: flags&resourceIO != 0, Wide: flags&resourceWide != 0, Cached: flags&resourcePrefetch != 0,
				})
			}
		}
		i++
	}
	return out
}

// linkOf reads speeds as `8.0 GT/s PCIe`, or Unknown; widths are 0 or 255 where they are.
func linkOf(dir string) *Link {
	l := Link{
		Speed: speed(text(dir, "current_link_speed")), Width: number(dir, "current_link_width", 0),
		MaxSpeed: speed(text(dir, "max_link_speed")), MaxWidth: number(dir, "max_link_width", 0),
	}
	for _, w := range []*int{&l.Width, &l.MaxWidth} {
		if *w < 0 || *w > 32 {
			*w = 0
		}
	}
	if l.MaxSpeed == 0 && l.MaxWidth == 0 {
		return nil
	}
	return &l
}

// speed is a speed in million transfers a second; 0 where it is unknown.
func speed(s string) int {
	value, _, ok := strings.Cut(s, " GT/s")
	n, err := strconv.ParseFloat(value, 64)
	if !ok || err != nil || !(n > 0 && n < 1000) {
		return 0
	}
	return int(n * 1000)
}

// ownMAC is the address that an interface was made with: addr_assign_type is 0 then
// (NET_ADDR_PERM).
func ownMAC(dir string) string {
	if text(dir, "addr_assign_type") != "0" {
		return ""
	}
	return text(dir, "address")
}
