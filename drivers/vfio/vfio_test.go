package vfio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const address = "0000:01:00.0"

// files makes a tree of files with what is in them.
func files(t *testing.T, all map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRemapping(t *testing.T) {
	for _, tt := range []struct {
		chips map[string]string
		want  bool
	}{
		{map[string]string{"kernel/irq/0/chip_name": "IO-APIC\n", "kernel/irq/24/chip_name": "PCI-MSI-0000:00:02.0\n"}, false},
		{map[string]string{"kernel/irq/0/chip_name": "IR-IO-APIC\n", "kernel/irq/24/chip_name": "DMAR-MSI\n"}, true},
		{map[string]string{"kernel/irq/9/chip_name": "\n", "kernel/irq/25/chip_name": "IR-PCI-MSIX-0000:01:00.0\n"}, true},
	} {
		if got, err := remapping(files(t, tt.chips)); got != tt.want || err != nil {
			t.Errorf("interrupts are remapped by %v: %v, %v", tt.chips, got, err)
		}
	}
	if got, err := remapping(t.TempDir()); got || err == nil {
		t.Errorf("interrupts are remapped where nothing is known: %v, %v", got, err)
	}
}

func TestUnsafeAllowed(t *testing.T) {
	const parameter = "/parameters/allow_unsafe_interrupts"
	root := files(t, map[string]string{"module/iommufd" + parameter: "N\n", "module/vfio_iommu_type1" + parameter: "Y\n"})
	if got := unsafeAllowed(root); !slices.Equal(got, []string{"vfio_iommu_type1.allow_unsafe_interrupts"}) {
		t.Errorf("allowed by %v", got)
	}
}

// A device file counts where it is, too.
func TestNode(t *testing.T) {
	root := files(t, map[string]string{"bus/pci/devices/" + address + "/vfio-dev/vfio7/dev": "1:2\n"})
	if got := node(root, t.TempDir(), address); got != "" {
		t.Errorf("node without a file: %q", got)
	}
	dev := files(t, map[string]string{"vfio/devices/vfio7": ""})
	if got := node(root, dev, address); got != filepath.Join(dev, "vfio/devices/vfio7") {
		t.Errorf("node = %q", got)
	}
}

// What is not there is not taken, and needs not be given back.
func TestGone(t *testing.T) {
	if err := take(t.TempDir(), address); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("take = %v", err)
	}
	if err := giveBack(t.TempDir(), address, "nvme"); err != nil {
		t.Errorf("give back = %v", err)
	}
}

func TestWithin(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	if err := within(time.Millisecond, func() error { <-hang; return nil }); !errors.Is(err, ErrStuck) {
		t.Errorf("what hangs ends with %v", err)
	}
}
