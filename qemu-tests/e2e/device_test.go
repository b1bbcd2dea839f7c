package e2e

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// pciDevices are those of the host.
func (h *host) pciDevices(t testing.TB) []*v1.PciDevice {
	t.Helper()
	r, err := h.Devices.ListPciDevices(within(t, time.Minute), connect.NewRequest(&v1.ListPciDevicesRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg.PciDevices
}

// usedAs is the one that the host uses so.
func usedAs(t testing.TB, all []*v1.PciDevice, u v1.PciDevice_Use) *v1.PciDevice {
	t.Helper()
	i := slices.IndexFunc(all, func(d *v1.PciDevice) bool { return slices.Contains(d.Uses, u) })
	if i < 0 {
		t.Fatalf("no device is used as %v, of %v", u, all)
	}
	return all[i]
}

// The host tells what is plugged in and what it uses itself; virtual functions come and go
// before the eyes of whoever watches.
func TestDevices(t *testing.T) {
	h := sharedHost(t)
	all := h.pciDevices(t)
	disk := usedAs(t, all, v1.PciDevice_USE_DATA_DISK)
	if disk.ClassCode != 0x010802 || disk.NvmeSerialNumber != "ashlar-data" || !slices.Contains(disk.StableNames, "nvme-ashlar_data") || disk.IommuGroup == nil {
		t.Errorf("the data disk is behind %v", disk)
	}
	if stick := usedAs(t, all, v1.PciDevice_USE_BOOT_DISK); stick.ClassCode != 0x0c0330 || stick.Driver != "xhci_hcd" {
		t.Errorf("the stick is behind %v", stick)
	}
	nic := usedAs(t, all, v1.PciDevice_USE_MANAGEMENT_NIC)
	name := "mac-" + strings.ReplaceAll(lab.ManagementMAC, ":", "")
	if nic.Driver != "e1000e" || nic.SerialNumber == "" || !slices.Contains(nic.StableNames, name) {
		t.Errorf("the management NIC is %v", nic)
	}
	if got := h.mustCtl(t, "device", "get", name); !regexp.MustCompile(`(?s)Address: +` + strings.TrimPrefix(nic.Name, "pciDevices/") + `.*Used by the host: +management NIC`).MatchString(got) {
		t.Errorf("ashlarctl says:\n%s", got)
	}
	i := slices.IndexFunc(all, func(d *v1.PciDevice) bool { return d.Sriov != nil })
	if i < 0 {
		t.Fatal("no device has virtual functions")
	}
	igb := all[i]
	if igb.VendorId != 0x8086 || igb.DeviceId != 0x10c9 || igb.Driver != "igb" || igb.Sriov.TotalVfs != 7 || igb.Sriov.EnabledVfs != 0 || igb.Parent == "" ||
		igb.AcsUnknown || igb.Link.GetWidth() == 0 || len(igb.Bars) == 0 || !slices.Contains(igb.ResetMethods, "flr") || len(igb.Uses) != 0 {
		t.Errorf("the NIC with virtual functions is %v", igb)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w, err := h.Watch.Watch(ctx, connect.NewRequest(&v1.WatchRequest{Collections: []string{"pciDevices"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	until := func(what string, fits func(*v1.WatchResponse) bool) *v1.WatchResponse {
		t.Helper()
		for w.Receive() {
			if fits(w.Msg()) {
				return w.Msg()
			}
		}
		t.Fatalf("nothing of %s: %v", what, w.Err())
		return nil
	}
	until("the present state", func(r *v1.WatchResponse) bool { return r.Synced })
	vfs := "/sys/bus/pci/devices/" + strings.TrimPrefix(igb.Name, "pciDevices/") + "/sriov_numvfs"
	t.Cleanup(func() { h.shell(t, "echo 0 > "+vfs) })
	h.shell(t, "echo 2 > "+vfs)
	vf := until("virtual functions", func(r *v1.WatchResponse) bool {
		return r.GetPciDevice().GetPhysicalFunction() == igb.Name && r.GetPciDevice().GetVirtualFunction() == 1
	}).GetPciDevice()
	if !strings.HasSuffix(vf.StableNames[0], "-vf1") || vf.IommuGroup == nil || *vf.IommuGroup == *igb.IommuGroup {
		t.Errorf("the second virtual function is %v", vf)
	}
	got := h.mustCtl(t, "device", "get", vf.StableNames[0], igb.Name, "-o", "json")
	var parsed []struct {
		Name  string
		Sriov struct {
			EnabledVfs       int
			VirtualFunctions []string
		}
	}
	if err := json.Unmarshal([]byte(got), &parsed); err != nil || parsed[0].Name != vf.Name || parsed[1].Sriov.EnabledVfs != 2 || parsed[1].Sriov.VirtualFunctions[1] != vf.Name {
		t.Errorf("ashlarctl says, %v:\n%s", err, got)
	}
	h.shell(t, "echo 0 > "+vfs)
	until("the end of the virtual functions", func(r *v1.WatchResponse) bool {
		return r.GetPciDevice().GetName() == vf.Name && r.Kind == v1.WatchResponse_KIND_DELETED
	})
}
