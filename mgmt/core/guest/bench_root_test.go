//go:build roottest

package guest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/drivers/interrupt"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/mgmt/core/network"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
)

// A bench is a manager on folders of its own.
type bench struct {
	*Manager
	c      Config
	kernel string

	mu     sync.Mutex
	events []hostcall.GuestStatus
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	group := filepath.Join(cgroups, "test-guests")
	if err := cgroup.Enable(cgroups, group); err != nil {
		t.Fatal(err)
	}
	images, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	folders, err := folder.Open(filepath.Join(dir, "guests"), images)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{kernel: id(0xabc)}
	f, err := images.Create(b.kernel, 4096)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("kernel")
	f.Close()
	if err := images.Seal(b.kernel); err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	nets, problems := network.New(layout.HostInfo{Networks: []layout.Network{{Name: "lan", Subnet: "10.80.0.0/24"}}},
		func(string, string) {}, slog.Default())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	interrupts, err := interrupt.New("/proc/irq", filepath.Join(dir, "interrupts"))
	if err != nil {
		t.Fatal(err)
	}
	b.c = Config{CPUs: CPUPolicy{Overcommit: 16}, Interrupts: interrupts, RunDir: filepath.Join(dir, "run"), EndDir: filepath.Join(dir, "ended"), DeviceDir: filepath.Join(dir, "devices"), Cgroup: group, VMM: program,
		Folders: folders, Images: images, Networks: nets, Log: slog.Default(),
		Memory:      func() (int64, error) { return 1 << 30, nil },
		FindDevices: func() (*pci.Inventory, error) { return pci.Find(pci.Host{}) },
		Functions:   sriov.New(sriov.Config{Inventory: func() (*pci.Inventory, error) { return pci.Find(pci.Host{}) }, Owners: func() map[string]string { return nil }, Log: slog.Default()}),
		Notify: func(s hostcall.GuestStatus) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, s)
		}}
	b.restart(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.Shutdown(ctx)
		b.nothingLeft(t)
	})
	return b
}

// restart makes a new manager, as a core does that is started again.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	m, err := New(b.c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := m.ShareCPUs(); err != nil {
		t.Fatal(err)
	}
	b.Manager = m
}

func (b *bench) guest(name string) *hostcall.Guest {
	return &hostcall.Guest{Name: name, VCPUs: 1, MemoryBytes: 64 << 20, Kernel: b.kernel, Disks: []int64{1 << 20, 8192},
		NICs: []hostcall.NIC{{Network: "lan", MAC: "02:00:00:00:00:01"}}}
}

func (b *bench) create(t *testing.T, n int) string {
	t.Helper()
	if err := b.Create(id(n), []hostcall.Disk{{Size: 1 << 20}, {Image: b.kernel, Size: 8192}}); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return id(n)
}

func (b *bench) start(t *testing.T, n int, name string) string {
	t.Helper()
	guest := b.create(t, n)
	if err := b.Start(t.Context(), guest, b.guest(name)); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return guest
}

// status returns what the manager says of a guest.
func (b *bench) status(t *testing.T, id string) hostcall.GuestStatus {
	t.Helper()
	all, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s hostcall.GuestStatus) bool { return s.ID == id })
	if i < 0 {
		t.Fatalf("guest %s is not in %v", id, all)
	}
	return all[i]
}

func (b *bench) wait(t *testing.T, id string, want hostcall.GuestState) hostcall.GuestStatus {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s := b.status(t, id)
		if s.State == want {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("guest is %+v, want %s", s, want)
		}
	}
}

// nothingLeft looks for remains of guests that do not run.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	for _, dir := range []string{b.c.RunDir, b.c.Cgroup} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				t.Errorf("%s/%s is left behind", dir, e.Name())
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Error(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "gtap") {
			t.Errorf("tap %s is left behind", l.Name)
		}
	}
}
