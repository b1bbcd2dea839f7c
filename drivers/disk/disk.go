// Package disk finds the host's disks, decides which one holds its data, and
// makes it usable: the inventory from sysfs (Documentation/ABI/stable/sysfs-block),
// what lies on a disk by the signatures of the formats themselves.
package disk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sectorSize is the unit of sizes in sysfs, whatever the disk's own is.
const sectorSize = 512

// A Disk is a whole disk of the host.
type Disk struct {
	// Name is the kernel's, "nvme0n1"; Node its device node, "/dev/nvme0n1".
	Name, Node string
	// Size in bytes.
	Size          int64
	Model, Serial string
	Removable     bool
	ReadOnly      bool
	// Partitions are those that the kernel found on it.
	Partitions []Partition
}

// A Partition of a disk.
type Partition struct {
	// Name is the kernel's, "sda2"; Node its device node.
	Name, Node string
	// Label is the name in the GPT (PARTNAME).
	Label string
}

// List returns the disks below sysfs ("/sys") that have a size, by name.
// Loop devices, RAM disks, optical drives and what is stacked on other disks
// are no disks here.
func List(sysfs string) ([]Disk, error) {
	dir := filepath.Join(sysfs, "block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var list []Disk
	for _, e := range entries {
		d, ok := read(filepath.Join(dir, e.Name()), e.Name())
		if ok {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func read(dir, name string) (Disk, bool) {
	if _, err := os.Stat(filepath.Join(dir, "device")); err != nil || strings.HasPrefix(name, "sr") || strings.HasPrefix(name, "fd") {
		return Disk{}, false
	}
	sectors, err := strconv.ParseInt(text(dir, "size"), 10, 64)
	if err != nil || sectors <= 0 || sectors > 1<<62/sectorSize {
		return Disk{}, false
	}
	return Disk{
		Name:       name,
		Node:       "/dev/" + name,
		Size:       sectors * sectorSize,
		Model:      text(dir, "device/model"),
		Serial:     serial(dir),
		Removable:  text(dir, "removable") == "1",
		ReadOnly:   text(dir, "ro") == "1",
		Partitions: partitions(dir),
	}, true
}

// serial is where each kind of disk keeps it: virtio, NVMe, SCSI.
func serial(dir string) string {
	for _, file := range []string{"serial", "device/serial"} {
		if s := text(dir, file); s != "" {
			return s
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil {
		return ""
	}
	return unitSerial(b)
}

// unitSerial reads SCSI's vital product data page 80h, "unit serial number"
// (SPC-4, section 7.8.15): four bytes of header, the last two the length.
func unitSerial(b []byte) string {
	if len(b) < 4 || b[1] != 0x80 {
		return ""
	}
	n := int(b[2])<<8 | int(b[3])
	return clean(b[4:min(len(b), 4+n)])
}

func partitions(dir string) []Partition {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "partition"))
	var list []Partition
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		label := ""
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(f), "uevent")); err == nil {
			label = variable(b, "PARTNAME")
		}
		list = append(list, Partition{Name: name, Node: "/dev/" + name, Label: label})
	}
	return list
}

// variable returns the value of key in the KEY=VALUE lines of a uevent file.
func variable(b []byte, key string) string {
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte(key+"=")); ok {
			return clean(value)
		}
	}
	return ""
}

func text(dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return clean(b)
}

// clean takes padding and what does not print from a device's own strings.
func clean(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, string(b))
	return strings.TrimSpace(s)
}

// FindPartition returns the first partition with that label, and its disk.
func FindPartition(disks []Disk, label string) (Partition, Disk, bool) {
	for _, d := range disks {
		for _, p := range d.Partitions {
			if p.Label == label {
				return p, d, true
			}
		}
	}
	return Partition{}, Disk{}, false
}

// String is what people recognise the disk by.
func (d Disk) String() string {
	s := fmt.Sprintf("%s (%s", d.Node, size(d.Size))
	if d.Model != "" {
		s += ", " + d.Model
	}
	if d.Serial != "" {
		s += ", serial " + d.Serial
	}
	return s + ")"
}

func size(n int64) string {
	for _, u := range []struct {
		n    int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		if n >= u.n {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
