package disk

import (
	"errors"
	"fmt"
	"io"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/efi"
	"github.com/ashlar-hv/ashlar/image-build/fat"
	"github.com/ashlar-hv/ashlar/image-build/gpt"
)

// ErrNotAshlar is what opening a disk gives that is no Ashlar image.
var ErrNotAshlar = errors.New("not an Ashlar image")

// A Partition is a part of a disk, read and written with offsets of its own.
// Nothing outside it can be reached.
type Partition struct {
	dev   fat.Device
	start int64
	// Size is in bytes.
	Size int64
}

// Part is partition p of dev.
func Part(dev fat.Device, p gpt.Partition) *Partition {
	return &Partition{dev: dev, start: p.Offset(), Size: p.Size()}
}

// ReadAt follows io.ReaderAt.
func (p *Partition) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > p.Size || int64(len(b)) > p.Size-off {
		return 0, io.ErrUnexpectedEOF
	}
	return p.dev.ReadAt(b, p.start+off)
}

// WriteAt follows io.WriterAt.
func (p *Partition) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > p.Size || int64(len(b)) > p.Size-off {
		return 0, io.ErrShortWrite
	}
	return p.dev.WriteAt(b, p.start+off)
}

// Sync writes what is in memory to the disk, where it is one.
func (p *Partition) Sync() error {
	if s, ok := p.dev.(interface{ Sync() error }); ok {
		return s.Sync()
	}
	return nil
}

// Layout is where an image's partitions are.
type Layout struct {
	Config, ESP gpt.Partition
}

// Open finds the partitions of an image of size bytes. What is no Ashlar image
// gives ErrNotAshlar, one that is cut off or damaged another error.
func Open(dev io.ReaderAt, size int64) (*Layout, error) {
	t, err := gpt.Read(dev, size)
	if errors.Is(err, gpt.ErrNoTable) {
		return nil, fmt.Errorf("%w: %w", ErrNotAshlar, err)
	}
	if err != nil {
		return nil, err
	}
	l := &Layout{}
	for _, p := range t.Partitions {
		switch {
		case p.Name == config.PartitionLabel && p.Type == gpt.BasicData:
			l.Config = p
		case p.Name == ESPLabel && p.Type == gpt.EFISystem:
			l.ESP = p
		}
	}
	if l.Config.Type == (gpt.GUID{}) || l.ESP.Type == (gpt.GUID{}) {
		return nil, fmt.Errorf("%w: it lacks the partitions %s and %s", ErrNotAshlar, config.PartitionLabel, ESPLabel)
	}
	return l, nil
}

// OpenConfig opens the file system of the configuration partition.
func (l *Layout) OpenConfig(dev fat.Device) (*fat.Volume, error) {
	p := Part(dev, l.Config)
	v, err := fat.Open(p, p.Size)
	if err != nil {
		return nil, fmt.Errorf("configuration partition: %w", err)
	}
	if v.Label() != config.PartitionLabel {
		return nil, fmt.Errorf("configuration partition: its label is %q, want %s: rename it, the host looks for that", v.Label(), config.PartitionLabel)
	}
	return v, nil
}

// Binary reads the EFI binary of an image, and takes it apart.
func (l *Layout) Binary(dev fat.Device) ([]byte, *efi.Image, error) {
	p := Part(dev, l.ESP)
	v, err := fat.Open(p, p.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("EFI system partition: %w", err)
	}
	b, err := v.ReadFile(BootPath, p.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("EFI system partition: %w", err)
	}
	i, err := efi.Read(b)
	if err != nil {
		return nil, nil, fmt.Errorf("EFI system partition: %s: %w", BootPath, err)
	}
	return b, i, nil
}
