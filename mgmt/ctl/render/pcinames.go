package render

import "fmt"

// pciClasses are classes and subclasses in words (PCI Code and ID Assignment
// Specification, section 1), as far as servers have such devices. The programming
// interface, the last 8 bits, tells a few of them apart.
var pciClasses = map[int32]string{
	0x0100: "SCSI controller", 0x0101: "IDE controller", 0x0104: "RAID controller", 0x0105: "ATA controller", 0x0106: "SATA controller",
	0x0107: "SAS controller", 0x0108: "NVMe controller", 0x0180: "storage controller",
	0x0200: "Ethernet controller", 0x0207: "InfiniBand controller", 0x0208: "fabric controller", 0x0280: "network controller",
	0x0300: "VGA controller", 0x0302: "3D controller", 0x0380: "display controller",
	0x0400: "video device", 0x0401: "audio device", 0x0403: "audio device", 0x0480: "multimedia device",
	0x0500: "RAM controller", 0x0502: "CXL memory", 0x0580: "memory controller",
	0x0600: "host bridge", 0x0601: "ISA bridge", 0x0604: "PCI bridge", 0x0609: "PCI bridge", 0x0680: "bridge",
	0x0700: "serial controller", 0x0780: "communication controller",
	0x0800: "interrupt controller", 0x0801: "DMA controller", 0x0806: "IOMMU", 0x0807: "root complex event collector", 0x0880: "system device",
	0x0b40: "co-processor",
	0x0c03: "USB controller", 0x0c04: "Fibre Channel controller", 0x0c05: "SMBus", 0x0c07: "IPMI interface", 0x0c80: "serial bus controller",
	0x0d80: "wireless controller",
	0x1000: "encryption controller", 0x1080: "encryption controller",
	0x1101: "performance counters", 0x1180: "signal processing controller",
	0x1200: "processing accelerator", 0x1300: "instrumentation",
}

// pciClass is a class code in words.
func pciClass(code int32) string {
	if w, ok := pciClasses[code>>8]; ok {
		return w
	}
	if code == 0 || code>>8 == 0xffff {
		return "other device"
	}
	return deviceClass(code)
}

// pciVendors are the makers of what is found in servers, by the number that the PCI-SIG
// gave them. A whole list is a hundred times as long, and grows by the week: devices
// have numbers alone.
var pciVendors = map[int32]string{
	0x1000: "Broadcom (LSI)", 0x1002: "AMD (ATI)", 0x1011: "DEC", 0x1014: "IBM", 0x1022: "AMD", 0x1028: "Dell", 0x102b: "Matrox",
	0x103c: "HP", 0x104c: "Texas Instruments", 0x1077: "QLogic", 0x10b5: "PLX", 0x10de: "NVIDIA", 0x10df: "Emulex", 0x10ec: "Realtek",
	0x10ee: "Xilinx", 0x1106: "VIA", 0x111d: "Microsemi (IDT)", 0x1131: "NXP", 0x1137: "Cisco", 0x1166: "ServerWorks",
	0x1172: "Altera", 0x1179: "Toshiba", 0x11ab: "Marvell", 0x11f8: "Microchip (PMC)", 0x1234: "QEMU", 0x126f: "Silicon Motion",
	0x12d8: "Pericom", 0x1344: "Micron", 0x1414: "Microsoft", 0x1425: "Chelsio", 0x144d: "Samsung", 0x14e4: "Broadcom",
	0x1590: "HPE", 0x15ad: "VMware", 0x15b3: "NVIDIA (Mellanox)", 0x15b7: "Sandisk", 0x177d: "Cavium", 0x17cb: "Qualcomm",
	0x1912: "Renesas", 0x1924: "Solarflare", 0x1957: "NXP (Freescale)", 0x1987: "Phison", 0x19a2: "Emulex", 0x19e5: "Huawei",
	0x1a03: "ASPEED", 0x1ae0: "Google", 0x1af4: "Red Hat (virtio)", 0x1b21: "ASMedia", 0x1b36: "Red Hat (QEMU)", 0x1b4b: "Marvell",
	0x1bb1: "Seagate", 0x1c58: "HGST", 0x1c5c: "SK hynix", 0x1cc1: "ADATA", 0x1d0f: "Amazon", 0x1d6a: "Aquantia", 0x1d78: "DERA",
	0x1da3: "Habana Labs", 0x1dd8: "AMD Pensando", 0x1e0f: "KIOXIA", 0x1e49: "YMTC", 0x1e95: "SSSTC", 0x1ed5: "Moore Threads",
	0x1fd4: "SUNIX", 0x2646: "Kingston", 0x8086: "Intel", 0x9005: "Adaptec", 0xc0a9: "Crucial",
}

// pciVendor is a maker's name, or its number.
func pciVendor(id int32) string {
	if w, ok := pciVendors[id]; ok {
		return w
	}
	return fmt.Sprintf("vendor %04x", id)
}
