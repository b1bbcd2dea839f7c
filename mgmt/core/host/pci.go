package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// bootLabel is the label of the partition with the configuration document
// (image-build/config): only what hosts boot from has one.
const bootLabel = "ASHLAR-CFG"

// pageBytes is how much of a message devices may take.
const pageBytes = seqpacket.MaxMessage * 3 / 4

// Devices finds the PCI devices that there are.
func Devices(info layout.HostInfo) (*pci.Inventory, error) {
	return pci.Find(pci.Host{BootLabel: bootLabel, DataDisk: info.DataDevice, Interface: info.Interface})
}

// PCI reads the devices that come after an address.
func PCI(info layout.HostInfo, after string) (*hostcall.PCIPage, error) {
	inv, err := Devices(info)
	if err != nil {
		return nil, err
	}
	return page(inv.After(after), inv.Read)
}

// page reads as many devices as fit. One that goes away meanwhile is left out.
func page(addresses []string, read func(string) (*pci.Device, error)) (*hostcall.PCIPage, error) {
	p := &hostcall.PCIPage{}
	size := 0
	for _, address := range addresses {
		d, err := read(address)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out := pciDevice(d)
		b, err := json.Marshal(out)
		if err != nil {
			return nil, fmt.Errorf("write PCI device %s: %w", address, err)
		}
		if size += len(b) + 1; size > pageBytes && len(p.Devices) > 0 {
			p.More = true
			return p, nil
		}
		p.Devices = append(p.Devices, out)
	}
	return p, nil
}

func pciDevice(d *pci.Device) hostcall.PCIDevice {
	out := hostcall.PCIDevice{
		Address: d.Address, Names: d.Names(), Parent: d.Parent,
		Vendor: d.Vendor, Device: d.Device, SubsystemVendor: d.SubsystemVendor, SubsystemDevice: d.SubsystemDevice,
		Class: d.Class, Revision: d.Revision, Driver: d.Driver, Node: d.Node, Group: d.Group, ResetMethods: d.ResetMethods,
		Extended: d.Extended, NoACS: d.NoACS, SerialNumber: d.SerialNumber, NVMe: d.NVMe,
	}
	if d.SRIOV != nil {
		out.TotalVFs, out.VFs = d.SRIOV.Total, d.SRIOV.Enabled
	}
	if d.Physical != nil {
		out.Physical, out.VF = d.Physical.Address, d.Physical.Index
	}
	if d.Link != nil {
		out.Link = &hostcall.PCILink{Speed: d.Link.Speed, Width: d.Link.Width, MaxSpeed: d.Link.MaxSpeed, MaxWidth: d.Link.MaxWidth}
	}
	for _, b := range d.BARs {
		out.BARs = append(out.BARs, hostcall.PCIBAR(b))
	}
	for _, i := range d.Interfaces {
		out.Interfaces = append(out.Interfaces, hostcall.PCINIC(i))
	}
	for _, u := range d.Uses {
		out.Uses = append(out.Uses, string(u))
	}
	return out
}
