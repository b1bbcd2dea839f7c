package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// nvmeDriver is the host's driver of such disks.
const nvmeDriver = "nvme"

// A wholeDisk is an NVMe disk of the host's that guests may have: its device and the PCI address
// of its controller.
type wholeDisk struct{ device, address string }

// spareDisk finds it. Its name may be another one each time the host has it.
func spareDisk() (wholeDisk, error) {
	d := wholeDisk{}
	var err error
	for end := time.Now().Add(vfio.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if d.device, err = bySerial(lab.SpareSerial); err == nil {
			break
		}
	}
	if err != nil {
		return wholeDisk{}, err
	}
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.device), "device/address"))
	if err != nil {
		return wholeDisk{}, err
	}
	d.address = string(bytes.TrimSpace(text))
	return d, nil
}

// taken has vfio-pci take it until the function that it returns is called.
func (d wholeDisk) taken() (func(), error) {
	if err := vfio.Take(d.address); err != nil {
		return nil, err
	}
	return func() { _ = vfio.GiveBack(d.address, nvmeDriver) }, nil
}

// diskLoads are those of blocks that fit a small disk.
func diskLoads() []load {
	loads := blockLoads()
	for i := range loads {
		loads[i].name = "NVMe: " + loads[i].name
		if loads[i].perExit != "" {
			loads[i].perExit = "NVMe: " + loads[i].perExit
		}
	}
	return loads
}

// throughDisk measures an NVMe disk: whole in a guest, behind virtio-blk, and on the host itself.
func (b *bench) throughDisk() error {
	loads := diskLoads()
	return b.inOrder("an NVMe disk's load", b.rounds, ways, func(s side, round int) error {
		d, err := spareDisk()
		if err != nil {
			return err
		}
		sp := spec{cpus: 1, memoryMiB: 256, initramfs: "load.cpio"}
		switch s.name {
		case byHost.name:
			return b.onHost(s, d.device, round, loads)
		case byVirtio.name:
			sp.disk = d.device
		default:
			back, err := d.taken()
			if err != nil {
				return fmt.Errorf("take %s from the host: %w", d.device, err)
			}
			defer back()
			sp.device, sp.cmdline = d.address, "bench.disk=/dev/nvme0n1"
		}
		return b.underLoad(s, sp, round, loads)
	})
}
