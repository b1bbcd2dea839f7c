//go:build roottest

package interrupt

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/vfio"
)

// What a VMM asks of a device (linux/vfio.h).
const (
	vfioIO        = ';'<<8 | 100
	setIRQs       = vfioIO | 10
	bindIOMMUFD   = vfioIO | 18
	msiX          = 2
	eventTriggers = 1<<2 | 1<<5 // VFIO_IRQ_SET_DATA_EVENTFD, _ACTION_TRIGGER
)

// order makes an ioctl with words of 32 bits, of which the first is to be their size.
func order(t *testing.T, f *os.File, request int, words ...uint32) {
	t.Helper()
	words[0] = uint32(4 * len(words))
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	if err := ioctl(f, request, b); err != nil {
		t.Fatalf("ioctl %#x: %v", request, err)
	}
}

// interrupts are those of a device that VFIO handles, and the CPUs of each.
func interrupts(t *testing.T, address string) (cpus []string) {
	t.Helper()
	found, err := filepath.Glob("/proc/irq/*/vfio-msix*(" + address + ")")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "smp_affinity_list"))
		if err != nil {
			t.Fatal(err)
		}
		cpus = append(cpus, strings.TrimSpace(string(b)))
	}
	return cpus
}

// TestCPUsOfDevice: the interrupts of a device that a guest has, those that it asks for later too, come
// on the CPUs that they are to come on, until it has ended.
func TestCPUsOfDevice(t *testing.T) {
	controllers, err := filepath.Glob("/sys/bus/pci/drivers/nvme/0000:*")
	if err != nil || len(controllers) == 0 {
		t.Fatalf("NVMe controllers of the host: %q, %v", controllers, err)
	}
	address := filepath.Base(controllers[0])
	if err := vfio.Take(address); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := vfio.GiveBack(address, "nvme"); err != nil {
			t.Error(err)
		}
	}()
	open := func(name string) *os.File {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	iommu, device := open("/dev/iommu"), open(vfio.Node(address))
	defer iommu.Close()
	defer device.Close()
	order(t, device, bindIOMMUFD, 0, 0, uint32(iommu.Fd()), 0)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)

	s, err := New("/proc/irq", filepath.Join(t.TempDir(), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	online := []int{0, 1, 2, 3, 4, 5, 6, 7}
	keep := func(devices ...Device) {
		t.Helper()
		if _, err := s.Keep(online, nil, devices); err != nil {
			t.Fatal(err)
		}
	}
	const beside, text = 6, "6"
	for n := range 2 {
		order(t, device, setIRQs, 0, eventTriggers, msiX, uint32(n), 1, uint32(event))
		if got := interrupts(t, address); len(got) != n+1 || got[n] == text && n == 0 {
			t.Fatalf("the device has interrupts on the CPUs %q, want %d", got, n+1)
		}
		keep(Device{Address: address, CPUs: []int{beside}})
		for _, c := range interrupts(t, address) {
			if c != text {
				t.Errorf("an interrupt of the device comes on the CPUs %s, want %s", c, text)
			}
		}
	}
	keep()
	if got := interrupts(t, address); slices.Contains(got, text) {
		t.Errorf("when the guest has ended interrupts come on the CPUs %q", got)
	}
}
