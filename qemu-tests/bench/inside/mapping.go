package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	hostvfio "github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/vfio"
)

// littleMiB is memory whose mapping costs next to nothing.
const littleMiB = 2

// mapping measures what it takes to map memory for a device of the host's: to open it with 1 GiB, less
// what that takes with 2 MiB.
func (b *bench) mapping() error {
	all := append(kinds[:len(kinds):len(kinds)], kind{side: side{name: "4 KiB, new"}, pages: protocol.SmallPages, untouched: true})
	return b.onKinds("mapping memory for a device", all, func(k kind, round int) error {
		d, err := spareDisk()
		if err != nil {
			return err
		}
		back, err := d.taken()
		if err != nil {
			return err
		}
		defer back()
		little, err := b.mapTime(d.address, protocol.SmallPages, littleMiB, false)
		if err != nil {
			return err
		}
		much, err := b.mapTime(d.address, k.pages, pagesMiB, k.untouched)
		if err != nil {
			return err
		}
		b.sample("mapping 1 GiB for a device", "ms", figure.Lower, k.name, round, milliseconds(much-little))
		b.sample("opening a device with 2 MiB to map", "ms", figure.Lower, k.name, round, milliseconds(little))
		return nil
	})
}

// mapTime has a process of its own open a device, which ends with it.
func (b *bench) mapTime(address string, pages protocol.Pages, mib int, untouched bool) (time.Duration, error) {
	out, err := exec.Command(filepath.Join(b.payload, "inside"), "map", address, string(pages), strconv.Itoa(mib), strconv.FormatBool(untouched)).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return 0, fmt.Errorf("open %s with %d MiB: %w: %s", address, mib, err, text)
	}
	return time.ParseDuration(text)
}

// mapped is that process: it opens the device at an address for a guest of so many MiB on
// pages of a kind, as a VMM does, and prints how long that took.
func mapped(args []string) error {
	if len(args) != 4 {
		return errors.New("map: want an address, a kind of pages, MiB, and whether nobody has used them")
	}
	mib, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	size := uint64(mib) << 20
	f, err := guestMemory(size, protocol.Pages(args[1]))
	if err != nil {
		return err
	}
	mem, err := memory.Map(f, size)
	if err != nil {
		return err
	}
	if args[3] != "true" {
		if err := mem.Populate(); err != nil {
			return err
		}
	}
	files, err := openAll(os.O_RDWR, "/dev/kvm", hostvfio.IOMMUFD, hostvfio.Node(args[0]))
	if err != nil {
		return err
	}
	system, err := kvm.Open(files[0])
	if err != nil {
		return err
	}
	vm, err := system.CreateVM()
	if err != nil {
		return err
	}
	device, err := vm.CreateVFIO()
	if err != nil {
		return err
	}
	host := vfio.NewHost(vfio.HostConfig{Memory: mem, KVM: device})
	host.UseIOMMUFD(files[1])
	began := time.Now()
	if _, err := host.Open(vfio.DeviceConfig{Address: args[0], File: files[2]}); err != nil {
		return err
	}
	fmt.Println(time.Since(began))
	return nil
}
