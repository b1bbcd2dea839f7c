package host

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// What there is to tell of a thousand devices goes into several messages, each device into
// one of them.
func TestPCIPages(t *testing.T) {
	var addresses []string
	for n := range 1000 {
		addresses = append(addresses, fmt.Sprintf("0000:%02x:%02x.%d", n/256, n/8%32, n%8))
	}
	read := func(address string) (*pci.Device, error) {
		if address == addresses[500] {
			return nil, fmt.Errorf("gone: %w", fs.ErrNotExist)
		}
		d := &pci.Device{
			Address: address, Path: "0000:00-1c.0-00.0-02.0-00.0", Parent: "0000:00:1c.0", Vendor: 0x8086, Device: 0x1572, Class: 0x020000,
			ResetMethods: []string{"device_specific", "acpi", "flr", "af_flr", "pm", "bus"}, NoACS: addresses[:10], SerialNumber: "fedcba9876543210",
			Link: &pci.Link{Speed: 8000, Width: 16, MaxSpeed: 8000, MaxWidth: 16}, Uses: []pci.Use{pci.ManagementNIC},
		}
		for n := range 8 {
			d.Interfaces = append(d.Interfaces, pci.Interface{Name: fmt.Sprintf("enp1s0f0np0_%d", n), MAC: "3c:fd:fe:01:02:03"})
		}
		for n := range 6 {
			d.BARs = append(d.BARs, pci.BAR{Index: n, Bytes: 1 << 50, Wide: true, Cached: true})
		}
		return d, nil
	}
	var got []string
	for left, pages := addresses, 0; ; pages++ {
		p, err := page(left, read)
		if err != nil || pages > 100 {
			t.Fatalf("page %d: %v", pages, err)
		}
		b, err := json.Marshal(hostcall.Message{Seq: 1 << 60, PCI: p})
		if err != nil || len(b) > seqpacket.MaxMessage {
			t.Fatalf("a page has %d bytes, %v", len(b), err)
		}
		for _, d := range p.Devices {
			got = append(got, d.Address)
		}
		if !p.More {
			break
		}
		left = addresses[slices.Index(addresses, got[len(got)-1])+1:]
	}
	if want := slices.Concat(addresses[:500], addresses[501:]); !slices.Equal(got, want) {
		t.Errorf("%d devices in the pages, want %d", len(got), len(want))
	}
}

func TestPCIOfThisMachine(t *testing.T) {
	if bootLabel != config.PartitionLabel {
		t.Errorf("the stick's label is %s", config.PartitionLabel)
	}
	p, err := PCI(layout.HostInfo{}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range p.Devices {
		if d.Vendor == 0 || len(d.Names) == 0 {
			t.Errorf("device %+v", d)
		}
	}
}
