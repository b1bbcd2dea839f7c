package guest

import (
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

// A fileList is the descriptors that go with Configure.
type fileList struct{ files []*os.File }

// add takes f over and returns its place.
func (l *fileList) add(f *os.File) protocol.File {
	l.files = append(l.files, f)
	return protocol.File(len(l.files) - 1)
}

func (l *fileList) close() { seqpacket.CloseAll(l.files) }

// gather opens everything that the guest will ever use. The list is returned,
// and to be closed, also with an error.
func (m *Manager) gather(r *run, g *hostcall.Guest) (*protocol.Spec, *fileList, error) {
	l := new(fileList)
	spec := &protocol.Spec{
		Name: g.Name, UUID: uuid(r.rec.ID), VCPUs: g.VCPUs, MaxVCPUs: g.MaxVCPUs, CPU: g.CPU, MemoryBytes: g.MemoryBytes, Backing: g.Backing.ForNodes(r.rec.shares()), BalloonBytes: g.BalloonBytes, NUMA: r.rec.NUMA,
		Pluggable: g.Pluggable,
		Boot:      protocol.Boot{Cmdline: g.Cmdline},
		Jail:      protocol.Jail{UID: r.rec.uid(), GID: r.rec.uid()},
	}
	for _, step := range []func(*run, *hostcall.Guest, *protocol.Spec, *fileList) error{
		m.gatherBoot, m.gatherHost, m.gatherDisks, m.gatherNICs, m.gatherVsock, m.gatherBoard, m.gatherSerial, m.gatherVFIO,
	} {
		if err := step(r, g, spec, l); err != nil {
			return nil, l, err
		}
	}
	return spec, l, nil
}

func (m *Manager) gatherBoot(_ *run, g *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	kernel, err := m.c.Images.OpenSealed(g.Kernel, "guest.kernel")
	if err != nil {
		return err
	}
	spec.Boot.Kernel = l.add(kernel)
	if g.Initramfs == "" {
		return nil
	}
	initramfs, err := m.c.Images.OpenSealed(g.Initramfs, "guest.initramfs")
	if err != nil {
		return err
	}
	place := l.add(initramfs)
	spec.Boot.Initramfs = &place
	return nil
}

func (m *Manager) gatherHost(r *run, g *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	kvm, err := openDevice("/dev/kvm", unix.O_RDWR)
	if err != nil {
		return &hostcall.Error{Code: hostcall.Unavailable,
			Message: fmt.Sprintf("The host cannot run guests: %v. Enable hardware virtualization (VT-x or AMD-V) in the firmware's set-up.", err)}
	}
	spec.KVM = l.add(kvm)
	spec.NodeAccess = m.nodeAccess(g.NUMA)
	memory, err := guestMemory(g.MemoryBytes+g.Pluggable.Max(), r.rec.Pages)
	if err != nil {
		return err
	}
	spec.Memory = l.add(memory)
	entropy, err := openDevice("/dev/urandom", unix.O_RDONLY)
	if err != nil {
		return err
	}
	spec.Entropy = l.add(entropy)
	log, err := m.c.Folders.NewLog(r.rec.ID)
	if err != nil {
		return err
	}
	spec.Log = l.add(log)
	return nil
}

func (m *Manager) gatherDisks(r *run, g *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	disks, err := m.c.Folders.OpenDisks(r.rec.ID, g.DiskNumbers, g.Disks)
	if err != nil {
		return err
	}
	for i, d := range disks {
		spec.Disks = append(spec.Disks, newDisk(g.DiskNumbers[i], l.add(d), limitsOf(g, i)))
	}
	return nil
}

// disks are the files of the disks of spec.
func (l *fileList) disks(spec *protocol.Spec) []*os.File {
	var disks []*os.File
	for _, d := range spec.Disks {
		disks = append(disks, l.files[d.File])
	}
	return disks
}

// A diskUse is what the disks of a guest may come to, in bytes.
type diskUse struct {
	largest int64 // one of them
	// memory is all of those in a tmpfs: its pages count as memory of the
	// process that writes them.
	memory int64
}

func useOf(disks []*os.File) (use diskUse, err error) {
	for i, f := range disks {
		info, err := f.Stat()
		if err != nil {
			return diskUse{}, fmt.Errorf("look up disk %d: %w", i, err)
		}
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
			return diskUse{}, fmt.Errorf("look up file system of disk %d: %w", i, err)
		}
		use.largest = max(use.largest, info.Size())
		if fs.Type == unix.TMPFS_MAGIC {
			use.memory += info.Size()
		}
	}
	return use, nil
}

func (m *Manager) gatherNICs(r *run, g *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	for i, n := range r.rec.NICs {
		nic, err := m.openNIC(r, n, g.NICs[i], protocol.Pairs(g.VCPUs, len(r.rec.NICs)), l)
		if err != nil {
			return err
		}
		spec.NICs = append(spec.NICs, nic)
		if err := m.setUpNIC(r.rec.tap(i), g.NICs[i]); err != nil {
			return err
		}
	}
	return nil
}

// openNIC opens what a NIC of r with so many pairs of queues is made of, and has its tap be
// as want says.
func (m *Manager) openNIC(r *run, n folder.Interface, want hostcall.NIC, pairs int, l *fileList) (protocol.NIC, error) {
	nic := protocol.NIC{Number: n.Number, MAC: n.MAC, MTU: m.c.Networks.MTU(n.Network), LinkDown: want.LinkDown}
	vhosts := m.openVhost(r, pairs)
	taps, err := m.c.Networks.OpenTap(r.rec.tap(n.Number), n.Network, max(1, len(vhosts)))
	if err != nil {
		seqpacket.CloseAll(vhosts)
		return nic, err
	}
	for j, tap := range taps {
		pair := protocol.Pair{Tap: l.add(tap)}
		if j < len(vhosts) {
			place := l.add(vhosts[j])
			pair.Vhost = &place
		}
		nic.Pairs = append(nic.Pairs, pair)
	}
	return nic, m.setUpNIC(r.rec.tap(n.Number), want)
}

// openVhost opens vhost-net n times: less often, or not at all, where the kernel
// has not enough of it.
func (m *Manager) openVhost(r *run, n int) (files []*os.File) {
	for range n {
		f, err := openDevice("/dev/vhost-net", unix.O_RDWR)
		if err != nil {
			m.c.Log.Warn("network data path goes through fewer kernel threads, or the VMM", "guest", r.rec.Name, "have", len(files), "want", n, "error", err)
			break
		}
		files = append(files, f)
	}
	return files
}

// openDevice opens a device without letting the Go runtime touch its flags.
func openDevice(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// uuid writes an identifier as a UUID.
func uuid(id string) string {
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}
