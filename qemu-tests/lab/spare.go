package lab

import "os"

const (
	// SpareSerial is the serial number of an NVMe disk behind a root port of its own, for a guest.
	// It is too small for a data disk.
	SpareSerial = "ashlar-spare"
	// SpareDevice is the ID of that disk in QEMU.
	SpareDevice = "spare"
	// EduID is the vendor and device ID of two devices (QEMU's docs/specs/edu.rst) on one
	// conventional bus: no IOMMU can tell them apart.
	EduID = 0x1234_11e8

	spareFile = "spare.img"
	spareSize = 64 << 20
)

// makeSpare makes the disk's file, where there is none yet.
func (l *Lab) makeSpare() error {
	if _, err := os.Stat(l.Path(spareFile)); err == nil {
		return nil
	}
	f, err := os.Create(l.Path(spareFile))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(spareSize)
}

// spare are devices that guests can be given, and some that they cannot.
func (l *Lab) spare() []string {
	return []string{
		"-device", "pcie-root-port,id=rp2,chassis=2",
		"-drive", "if=none,id=sparedrive,format=raw,file=" + l.Path(spareFile),
		"-device", "nvme,id=" + SpareDevice + ",bus=rp2,serial=" + SpareSerial + ",drive=sparedrive",
		"-device", "pcie-root-port,id=rp3,chassis=3",
		"-device", "pcie-pci-bridge,id=pci1,bus=rp3",
		"-device", "edu,bus=pci1,addr=1", "-device", "edu,bus=pci1,addr=2",
	}
}
