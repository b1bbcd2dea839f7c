package render

import (
	"fmt"
	"strconv"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// PciDevices is a table with a line for each; wide ones have more columns.
func PciDevices(devices []*ashlarv1.PciDevice, wide bool) *Rows {
	r := &Rows{Header: []string{"ADDRESS", "CLASS", "ID", "VENDOR", "DRIVER", "NODE", "GROUP", "USED AS", "OWNER"}}
	if wide {
		r.Header = append(r.Header, "VFS", "RESET", "LINK", "WITHOUT ACS", "STABLE NAME")
	}
	for _, d := range devices {
		line := []string{
			ID(d.GetName()), pciClass(d.GetClassCode()), pciID(d.GetVendorId(), d.GetDeviceId()), pciVendor(d.GetVendorId()), orDash(d.GetDriver()),
			optional(d.Node), optional(d.IommuGroup), orDash(pciUses(d)), orDash(ID(d.GetOwner())),
		}
		if wide {
			line = append(line, orDash(pciVFs(d)), orDash(strings.Join(d.GetResetMethods(), ",")), orDash(pciLink(d.GetLink())),
				orDash(strings.Join(pciWithoutACS(d), ",")), orDash(preferred(d.GetStableNames())))
		}
		r.Add(line...)
	}
	return r
}

// PciDevice is everything about one.
func PciDevice(d *ashlarv1.PciDevice) *Rows {
	r := &Rows{}
	r.Add("Address:", ID(d.GetName()))
	for i, n := range d.GetStableNames() {
		r.Add(once(i, "Stable names:"), n)
	}
	r.Add("Class:", fmt.Sprintf("%s (%06x)", pciClass(d.GetClassCode()), d.GetClassCode()))
	r.Add("Device:", fmt.Sprintf("%s, %s, revision %02x", pciID(d.GetVendorId(), d.GetDeviceId()), pciVendor(d.GetVendorId()), d.GetRevision()))
	if d.GetSubsystemVendorId() != 0 {
		r.Add("Subsystem:", pciID(d.GetSubsystemVendorId(), d.GetSubsystemDeviceId())+", "+pciVendor(d.GetSubsystemVendorId()))
	}
	r.Add("Driver:", orDash(d.GetDriver()))
	r.Add("NUMA node:", optional(d.Node))
	r.Add("IOMMU group:", optional(d.IommuGroup)+with(d.GetGroupMembers()))
	if d.GetParent() != "" {
		r.Add("Behind:", ID(d.GetParent()))
	}
	r.Add("Without ACS:", orDash(strings.Join(pciWithoutACS(d), ", ")))
	r.Add("Reset:", orDash(strings.Join(d.GetResetMethods(), ", ")))
	if s := d.GetSriov(); s != nil {
		r.Add("Virtual functions:", fmt.Sprintf("%d of %d", s.GetEnabledVfs(), s.GetTotalVfs()))
		for _, n := range s.GetVirtualFunctions() {
			r.Add("", ID(n))
		}
	}
	if d.GetPhysicalFunction() != "" {
		r.Add("Virtual function:", fmt.Sprintf("%d of %s", d.GetVirtualFunction(), ID(d.GetPhysicalFunction())))
	}
	if l := pciLink(d.GetLink()); l != "" {
		r.Add("Link:", l)
	}
	for _, b := range d.GetBars() {
		r.Add(fmt.Sprintf("BAR %d:", b.GetIndex()), bar(b))
	}
	for _, n := range d.GetNetworkInterfaces() {
		r.Add("Network interface:", strings.Join(nonEmpty(n.GetName(), n.GetMacAddress()), ", "))
	}
	if d.GetNvmeSerialNumber() != "" {
		r.Add("NVMe serial:", d.GetNvmeSerialNumber())
	}
	r.Add("Used by the host:", orDash(pciUses(d)))
	r.Add("Owner:", orDash(ID(d.GetOwner())))
	return r
}

// PciDeviceLine is one in a line: what it is, and its driver.
func PciDeviceLine(d *ashlarv1.PciDevice) string {
	line := pciClass(d.GetClassCode()) + " " + pciID(d.GetVendorId(), d.GetDeviceId())
	if d.GetDriver() != "" {
		line += ", " + d.GetDriver()
	}
	return line
}

// once is a title for the first of several lines.
func once(i int, title string) string {
	if i > 0 {
		return ""
	}
	return title
}

func with(members []string) string {
	var ids []string
	for _, m := range members {
		ids = append(ids, ID(m))
	}
	if len(ids) == 0 {
		return ""
	}
	return ", with " + strings.Join(ids, ", ")
}

func optional(n *int32) string {
	if n == nil {
		return "-"
	}
	return strconv.Itoa(int(*n))
}

func pciID(vendor, device int32) string { return fmt.Sprintf("%04x:%04x", vendor, device) }

// pciUses are what the host uses a device for.
func pciUses(d *ashlarv1.PciDevice) string {
	var out []string
	for _, u := range d.GetUses() {
		out = append(out, strings.Replace(words(u.String(), "USE_"), " nic", " NIC", 1))
	}
	return strings.Join(out, ", ")
}

// pciVFs are how many virtual functions it has, or whose it is.
func pciVFs(d *ashlarv1.PciDevice) string {
	if s := d.GetSriov(); s != nil {
		return fmt.Sprintf("%d of %d", s.GetEnabledVfs(), s.GetTotalVfs())
	}
	if d.GetPhysicalFunction() != "" {
		return fmt.Sprintf("%d of %s", d.GetVirtualFunction(), ID(d.GetPhysicalFunction()))
	}
	return ""
}

func pciWithoutACS(d *ashlarv1.PciDevice) []string {
	if d.GetAcsUnknown() {
		return []string{"unknown"}
	}
	var out []string
	for _, n := range d.GetWithoutAcs() {
		out = append(out, ID(n))
	}
	return out
}

// pciLink is `8 GT/s x8`, with the most where that is more.
func pciLink(l *ashlarv1.PciDevice_Link) string {
	now, most := lanes(l.GetSpeedMts(), l.GetWidth()), lanes(l.GetMaxSpeedMts(), l.GetMaxWidth())
	switch {
	case now == most:
		return now
	case now == "":
		return "down, at most " + most
	case most == "":
		return now
	}
	return now + ", at most " + most
}

func lanes(mts, width int32) string {
	if mts == 0 || width == 0 {
		return ""
	}
	return fmt.Sprintf("%s GT/s x%d", strconv.FormatFloat(float64(mts)/1000, 'f', -1, 64), width)
}

func bar(b *ashlarv1.PciDevice_Bar) string {
	if b.GetIo() {
		return size.Format(b.GetSizeBytes()) + ", I/O"
	}
	kind := "32-bit"
	if b.GetWide() {
		kind = "64-bit"
	}
	if b.GetPrefetchable() {
		kind += ", prefetchable"
	}
	return size.Format(b.GetSizeBytes()) + ", " + kind
}

// preferred is the name that says most to people: what is written on the device comes
// before where it is plugged in.
func preferred(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}
