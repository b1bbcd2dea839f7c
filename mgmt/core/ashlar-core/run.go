package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/drivers/interrupt"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/guest"
	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcheck"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/mgmt/core/network"
	"github.com/ashlar-hv/ashlar/mgmt/core/server"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"golang.org/x/sys/unix"
)

const manual = `ashlar-core touches the hardware of an Ashlar host, for control.

init starts it as root, without arguments, after it has written
` + layout.HostFile + `. With the argument ` + layout.CoreStop + ` it stops what guests there are, as
after SIGTERM, and exits: init does that where core has died on the way down.

It keeps images in ` + layout.ImageDir + ` and guests' disks in ` + layout.GuestDir + `,
makes a bridge with NAT and DHCP for each configured network, and starts one
` + layout.VMMBinary + ` for each running guest. Control asks it over
` + layout.CoreSocket + `.

SIGTERM or SIGINT: the guests' power buttons are pressed; what still runs after
` + stopTimeoutText + ` seconds is ended; then it exits with 0. After any other end the
guests go on, and the next ashlar-core adopts them.
`

const (
	stopTimeout     = 25 * time.Second // for guests to power off
	stopTimeoutText = "25"
	// endDir remembers how guests ended, until the host is booted again.
	endDir = layout.RunDir + "/ended"
	// deviceDir has a record of each device that a guest has, until the host is booted again.
	deviceDir = layout.RunDir + "/devices"
	// firstStart holds the time from kernel entry to the first start of core,
	// in nanoseconds.
	firstStart = layout.RunDir + "/core-started"
	// movedFile says where interrupts were before they were moved.
	movedFile = layout.RunDir + "/interrupts.json"
)

func run(args []string) error {
	stopping := len(args) == 1 && args[0] == layout.CoreStop
	if len(args) > 0 && !stopping {
		fmt.Print(manual)
		if args[0] == "--help" {
			return nil
		}
		return fmt.Errorf("unknown argument %q", args[0])
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	slog.SetDefault(log)
	if err := jail.KeepOnly(capabilities); err != nil {
		return fmt.Errorf("give up privilege: %w", err)
	}
	info, err := readHost(layout.HostFile)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if stopping {
		stop()
	}
	return serve(ctx, info, log)
}

// withoutTime leaves out the time: the kernel log, where lines go, has its own.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// readHost reads what init has written.
func readHost(path string) (layout.HostInfo, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return layout.HostInfo{}, fmt.Errorf("read host facts: %w: init writes them before it starts core", err)
	}
	var info layout.HostInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return layout.HostInfo{}, fmt.Errorf("read host facts %s: %w", path, err)
	}
	return info, nil
}

// prepare makes the folders that control and guests need.
func prepare() error {
	if err := os.MkdirAll(layout.ControlDir, 0o700); err != nil {
		return fmt.Errorf("make control's folder: %w", err)
	}
	if err := errors.Join(os.Chown(layout.ControlDir, layout.ControlUID, layout.ControlUID), os.Chmod(layout.ControlDir, 0o700)); err != nil {
		return fmt.Errorf("make control's folder: %w", err)
	}
	return nil
}

// bootToCore returns the time from kernel entry to the first start of core.
func bootToCore() time.Duration {
	if b, err := os.ReadFile(firstStart); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return time.Duration(n)
		}
	}
	now, err := host.Uptime()
	if err != nil {
		return 0
	}
	if err := os.WriteFile(firstStart, strconv.AppendInt(nil, int64(now), 10), 0o600); err != nil {
		slog.Warn("cannot keep the time of the first start", "error", err)
	}
	return now
}

// serve runs until ctx ends, and then stops the guests.
func serve(ctx context.Context, info layout.HostInfo, log *slog.Logger) error {
	since := bootToCore()
	// Where the data disk fails there may be guests to look after all the same.
	tolerate := func(err error) error {
		if err == nil {
			return nil
		}
		p := host.PoolProblem(layout.DataDir, info.DataDevice)
		if p == "" {
			return err
		}
		log.Error("core starts all the same", "error", err, "problem", p)
		return nil
	}
	if err := tolerate(prepare()); err != nil {
		return err
	}
	var own []string // problems besides those of init
	release, err := holdKVM()
	if err != nil {
		log.Error("no KVM", "error", err)
		own = append(own, fmt.Sprintf("No KVM: %v.", err))
	} else {
		defer release()
	}
	images, err := image.Open(layout.ImageDir)
	if err := tolerate(err); err != nil {
		return err
	}
	folders, err := folder.Open(layout.GuestDir, images)
	if err := tolerate(err); err != nil {
		return err
	}
	s := &server.Server{Images: images, UID: layout.ControlUID, Log: log}
	var guests *guest.Manager
	nets, problems := network.New(info, func(mac, address string) { guests.Leased(mac, address) }, log)
	for _, p := range problems {
		log.Error(p)
	}
	own = append(own, problems...)
	if err := cgroup.Enable(layout.CgroupRoot, layout.GuestCgroup); err != nil {
		log.Error("guests cannot be started", "error", err)
		own = append(own, fmt.Sprintf("Guests cannot be started: %v.", err))
	}
	if err := tolerate(keepAddresses(folders, nets)); err != nil {
		return err
	}
	interrupts, err := interrupt.New("/proc/irq", movedFile)
	if err != nil {
		return err
	}
	var latest atomic.Pointer[layout.HostInfo]
	latest.Store(&info)
	s.Functions = sriov.New(sriov.Config{
		Inventory: func() (*pci.Inventory, error) { return host.Devices(*latest.Load()) },
		Owners:    func() map[string]string { return guests.DeviceOwners() },
		Uplink:    nets.Uplink, Log: log,
	})
	s.Check = func() hostcall.HostCheckResult { return checkHost(latest.Load().Require) }
	own = append(own, reportWeakness(s.Check(), log)...)
	guests, err = guest.New(guest.Config{
		Allowed:   func() error { return hostcheck.Refusal(s.Check()) },
		Functions: s.Functions,
		DeviceDir: deviceDir, DevicesChanged: s.NotifyPCI,
		FindDevices: func() (*pci.Inventory, error) { return host.Devices(*latest.Load()) },
		RunDir:      layout.GuestRunDir, EndDir: endDir, Cgroup: layout.GuestCgroup, VMM: layout.VMMBinary,
		Folders: folders, Images: images, Networks: nets, Notify: s.Notify, Log: log,
		CPUs: guest.CPUPolicy{Reserved: info.ReservedCPUs, Overcommit: info.CPUOvercommit}, Interrupts: interrupts,
		Memory: func() (int64, error) { _, available, err := host.Memory(); return available, err },
	})
	if err != nil {
		return err
	}
	if err := guests.ShareCPUs(); err != nil {
		log.Error("guests may use all CPUs", "error", err)
		own = append(own, fmt.Sprintf("Guests may use all CPUs, and get none for themselves: %v.", err))
	}
	s.Guests = guests
	s.Host = func() hostcall.HostStatus {
		h := host.Status(*latest.Load(), layout.DataDir, since)
		h.Problems = slices.Concat(h.Problems, own)
		if p := host.PoolProblem(layout.DataDir, h.PoolDevice); p != "" {
			h.Problems = append(h.Problems, p)
		}
		h.Networks = nets.Names()
		return h
	}
	s.Facts = func() layout.HostInfo { return *latest.Load() }
	changed := func(i layout.HostInfo) {
		latest.Store(&i)
		s.NotifyPCI() // another interface may be that of the management
		s.NotifyLinks()
		if err := nets.Update(i); err != nil {
			log.Error("guest networks do not follow the host's", "error", err)
		}
	}
	return serveUntil(ctx, s, nets, guests, changed, log)
}

// keepAddresses tells nets the addresses that guests have from before.
func keepAddresses(folders *folder.Store, nets *network.Set) error {
	ids, err := folders.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		nics, err := folders.Interfaces(id)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			slog.Warn("guest gets new addresses", "guest", id, "error", err)
			continue
		}
		nets.Keep(id, nics)
	}
	return nil
}

func serveUntil(ctx context.Context, s *server.Server, nets *network.Set, guests *guest.Manager, changed func(layout.HostInfo), log *slog.Logger) error {
	l, err := server.Listen(layout.CoreSocket, layout.ControlUID)
	if err != nil {
		return err
	}
	// Calls and DHCP are served until the guests are down.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	defer all.Wait()
	defer end()
	all.Go(func() { nets.Serve(serving, layout.NetBinary) })
	all.Go(func() { followDevices(serving, log, s.NotifyPCI, guests.DeviceEvent) })
	all.Go(func() { followLinks(serving, log, s.NotifyLinks) })
	all.Go(func() {
		followPool(serving, log, func() string { return host.PoolProblem(layout.DataDir, s.Facts().DataDevice) })
	})
	all.Go(func() { followHost(serving, layout.HostFile, factsPoll, log, changed) })
	failed := make(chan error, 1)
	all.Go(func() { failed <- s.Serve(serving, l) })
	log.Info("core is ready", "socket", layout.CoreSocket)
	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	log.Info("core stops the guests", "timeout", stopTimeout)
	down, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	guests.Shutdown(down)
	log.Info("core has stopped the guests")
	return nil
}
