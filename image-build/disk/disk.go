// Package disk lays out the image that is flashed to a stick: a GUID partition
// table with a configuration partition and an EFI system partition, each a FAT
// file system. It is built in memory, needs no rights, and the same parts make
// the same bytes: volume and partition identifiers come from a hash of the
// contents.
//
// The configuration partition comes first and has a fixed place and size, so
// that whatever becomes of the rest of the disk (larger binaries, a second slot)
// it stays where it is.
package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/fat"
	"github.com/ashlar-hv/ashlar/image-build/gpt"
)

const mib = 1 << 20

// The layout, in bytes.
const (
	// MaxSize is the largest image: what there is to flash.
	MaxSize = 32 * mib
	// ConfigOffset and ConfigSize are the configuration partition's place.
	ConfigOffset = 1 * mib
	ConfigSize   = 4 * mib
	espOffset    = ConfigOffset + ConfigSize
	// espOverhead is what the system partition has besides the binary: two
	// FATs, the root, directories, and a little room for firmware that writes
	// to it.
	espOverhead = 512 << 10
	espMinSize  = 9 * mib // so that it has the clusters that make it FAT16
	espCluster  = 2048
	tail        = 1 * mib // the backup table, in a whole MiB
)

const (
	// ESPLabel is the name of the EFI system partition.
	ESPLabel = "ASHLAR-ESP"
	// BootPath is where firmware looks on a removable disk (UEFI 2.10, section
	// 3.5.1.1).
	BootPath = "EFI/BOOT/BOOTX64.EFI"
)

// Build makes an image with binary as its EFI binary.
func Build(binary []byte) ([]byte, error) {
	sum := sha256.Sum256(binary)
	espSize := int64(len(binary)+espOverhead+mib-1) / mib * mib
	espSize = max(espSize, espMinSize)
	size := espOffset + espSize + tail
	if size > MaxSize {
		return nil, fmt.Errorf("build image: it would be %s, want %s at most: the EFI binary alone is %s",
			Size(size), Size(MaxSize), Size(int64(len(binary))))
	}
	d := memory(make([]byte, size))
	table := gpt.Table{Disk: derive(sum, "disk"), Partitions: []gpt.Partition{
		partition(gpt.BasicData, derive(sum, "config"), config.PartitionLabel, ConfigOffset, ConfigSize),
		partition(gpt.EFISystem, derive(sum, "esp"), ESPLabel, espOffset, espSize),
	}}
	if err := table.Write(d, size, bootCode()); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	if err := formatConfig(Part(d, table.Partitions[0]), sum); err != nil {
		return nil, fmt.Errorf("build image: configuration partition: %w", err)
	}
	if err := fillESP(Part(d, table.Partitions[1]), sum, binary); err != nil {
		return nil, fmt.Errorf("build image: EFI system partition: %w", err)
	}
	return d, nil
}

func partition(kind, id gpt.GUID, name string, offset, size int64) gpt.Partition {
	return gpt.Partition{
		Type: kind, ID: id, Name: name,
		First: uint64(offset / gpt.BlockSize), Last: uint64((offset+size)/gpt.BlockSize) - 1,
	}
}

// derive makes an identifier of version 8 (RFC 9562) from a hash.
func derive(sum [32]byte, what string) gpt.GUID {
	h := sha256.Sum256(append(sum[:], what...))
	var g gpt.GUID
	copy(g[:], h[:])
	g[7] = g[7]&0x0f | 0x80 // the third group lies little endian
	g[8] = g[8]&0x3f | 0x80
	return g
}

func options(label string, sum [32]byte, clusterSize int, offset int64) fat.Options {
	id := derive(sum, label)
	return fat.Options{
		Label: label, ID: binary.LittleEndian.Uint32(id[:]),
		ClusterSize: clusterSize, Hidden: uint32(offset / gpt.BlockSize),
	}
}

func formatConfig(p *Partition, sum [32]byte) error {
	if err := fat.Format(p, p.Size, options(config.PartitionLabel, sum, 512, ConfigOffset)); err != nil {
		return err
	}
	v, err := fat.Open(p, p.Size)
	if err != nil {
		return err
	}
	return v.WriteFile("README.TXT", []byte(readme))
}

// readme is for somebody who opens the stick on a laptop.
const readme = "This partition holds the configuration of an Ashlar host, " + config.FileName + ".\r\n" +
	"Make one with `ashlarctl config init` and put it here with\r\n" +
	"`ashlarctl image configure DEVICE --config FILE`, which checks it first.\r\n"

func fillESP(p *Partition, sum [32]byte, binary []byte) error {
	if err := fat.Format(p, p.Size, options(ESPLabel, sum, espCluster, espOffset)); err != nil {
		return err
	}
	v, err := fat.Open(p, p.Size)
	if err != nil {
		return err
	}
	for _, dir := range []string{"EFI", "EFI/BOOT"} {
		if err := v.Mkdir(dir); err != nil {
			return err
		}
	}
	return v.WriteFile(BootPath, binary)
}

// bootCode tells whoever boots the stick by legacy BIOS what is wrong: 16-bit
// code that prints a line and halts.
func bootCode() []byte {
	code := []byte{
		0xfc,       // cld
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x19, 0x7c, // mov si, 0x7c19: the text behind the code
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x09, // jz halt
		0xb4, 0x0e, // mov ah, 0x0e: write a character
		0xbb, 0x07, 0x00, // mov bx, 7
		0xcd, 0x10, // int 0x10
		0xeb, 0xf2, // jmp next
		0xf4,       // halt: hlt
		0xeb, 0xfd, // jmp halt
	}
	return append(code, "Ashlar needs UEFI: switch legacy BIOS boot (CSM) off in the firmware.\r\n\x00"...)
}

// memory is an image in memory.
type memory []byte

func (m memory) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(b, off)
}

func (m memory) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m)) || len(b) > len(m)-int(off) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], b), nil
}

// Size is n bytes for people to read.
func Size(n int64) string {
	if n < mib {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mib)
}
