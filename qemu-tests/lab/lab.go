// Package lab runs an Ashlar host in QEMU as it would run on a server: UEFI
// firmware starts the disk image from an emulated USB stick; the machine has
// two NUMA nodes, an IOMMU with interrupt remapping (or without, or none: iommu.go), a network card for
// management, one with SR-IOV (igb), and an NVMe disk for guests; and what guests can be given whole (spare.go).
//
// With vmx or svm among the CPU's flags the machine uses KVM, without them
// software emulation with an emulated AMD SVM, so that the host can run guests
// everywhere.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/onecpu"
	"github.com/ashlar-hv/ashlar/qemu-tests/qmp"
)

// Config says what the machine is like. Dir is required.
type Config struct {
	// Dir holds the machine's disks, sockets and logs.
	Dir string
	// Memory is QEMU's -m; 4G where empty.
	Memory string
	// CPUs is QEMU's -smp. Where 0 it is the number of CPUs here, at most 4; in
	// software emulation it is 1. With more QEMU (10.0, 11.1) now and then loses a
	// walk of the page tables right after VMRUN or #VMEXIT: guests end with a triple
	// fault, and the host's kernel panics where it returns from a guest.
	CPUs int
	// Port is where the API appears on 127.0.0.1.
	Port int
	// Args are added to QEMU's.
	Args []string
	// DiskSize of the NVMe disk in bytes; 16 GiB where 0.
	DiskSize int64
	// PluggableDisk has the NVMe disk in a slot that it can be pulled out of (QMP's
	// device_del of DiskID), and its backend called DiskNode.
	PluggableDisk bool
	// DiskSocket has a virtio disk in place of the NVMe disk: what it holds is served at
	// this Unix socket as a network block device. The driver of a virtio disk knows no FUA:
	// what is to last it flushes.
	DiskSocket string `json:",omitempty"`
	// NoDisk leaves the NVMe disk out.
	NoDisk bool
	// IOMMU says what the machine has of one: all where it is empty, else WithoutIOMMU or
	// WithoutRemapping.
	IOMMU string
	// Repeatable has time count instructions (QEMU's -icount), in software
	// emulation everywhere: a run is the same on every machine, and slow.
	Repeatable bool
}

// Files in Config.Dir.
const (
	StickFile  = "stick.img"
	DiskFile   = "disk.img"
	SerialFile = "serial.log"
	RescueFile = "rescue.sock"
	qmpFile    = "qmp.sock"
	pidFile    = "qemu.pid"
	varsFile   = "OVMF_VARS.fd"
	logFile    = "qemu.log"
	configFile = "lab.json"
)

// DiskID and DiskNode are QEMU's names of the NVMe disk and of its backend.
const (
	DiskID   = "datadisk"
	DiskNode = "datanode"
)

// WiredDevice is QEMU's name of what the network card with SR-IOV is plugged into.
const WiredDevice = "vf"

// ManagementMAC is the address of the network card behind Config.Port.
const ManagementMAC = "52:54:00:a5:00:01"

// Ready starts the line that the host prints when its API answers.
const Ready = "ASHLAR READY"

// low has the firmware put all BARs below 4 GiB. QEMU (10.0) takes no more than the lower half
// of those of virtual functions that the firmware puts higher: they do not answer, and their
// driver says "PF still in reset state". OVMF obeys unless it trusts the width of physical
// addresses: of AMD's processors it trusts 40 bits and from 41 on, of Intel's also 36 and 39.
const low = "name=opt/ovmf/X-PciMmio64Mb,string=0"

// A Lab is a machine, running or not.
type Lab struct{ Config }

// Open returns the machine in dir, as it was last started.
func Open(dir string) (*Lab, error) {
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	l := new(Lab)
	if err := json.Unmarshal(b, &l.Config); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	l.Dir = dir
	return l, nil
}

// Path is the path of one of the machine's files.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// Start starts the machine from StickFile in Dir. It goes on in the background.
func Start(c Config) (*Lab, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	l := &Lab{c}
	if l.Running() {
		return nil, fmt.Errorf("lab in %s is running already: make down stops it", dir)
	}
	if err := l.prepare(); err != nil {
		return nil, err
	}
	args, err := l.args()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(l.Path(logFile))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintln(log, "qemu-system-x86_64", strings.Join(args, " "))
	q := exec.Command("qemu-system-x86_64", args...)
	q.Stdout, q.Stderr = log, log
	q.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if Hardware() && !l.Repeatable {
		err = q.Start()
	} else {
		err = onecpu.Start(q.Start)
	}
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w: make setup installs it", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- q.Wait() }()
	if err := os.WriteFile(l.Path(pidFile), []byte(strconv.Itoa(q.Process.Pid)), 0o644); err != nil {
		_ = q.Process.Kill()
		return nil, err
	}
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(l.Path(configFile), b, 0o644)
	}
	if err != nil {
		_ = q.Process.Kill()
		return nil, err
	}
	select {
	case err := <-exited:
		text, _ := os.ReadFile(l.Path(logFile))
		return nil, fmt.Errorf("QEMU ended at once (%w):\n%s", err, bytes.TrimSpace(text))
	case <-time.After(300 * time.Millisecond):
		return l, nil
	}
}

// prepare makes the files that a machine needs and has not yet.
func (l *Lab) prepare() error {
	if _, err := os.Stat(l.Path(StickFile)); err != nil {
		return fmt.Errorf("no stick: %w", err)
	}
	for _, f := range []string{qmpFile, RescueFile, SerialFile, pidFile} {
		os.Remove(l.Path(f))
	}
	if _, err := os.Stat(l.Path(varsFile)); err != nil {
		b, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
		if err != nil {
			return fmt.Errorf("UEFI firmware: %w: make setup installs it (package ovmf)", err)
		}
		if err := os.WriteFile(l.Path(varsFile), b, 0o644); err != nil {
			return err
		}
	}
	if err := l.makeSpare(); err != nil {
		return err
	}
	if l.NoDisk || l.DiskSocket != "" {
		return nil
	}
	if _, err := os.Stat(l.Path(DiskFile)); err == nil {
		return nil
	}
	f, err := os.Create(l.Path(DiskFile))
	if err != nil {
		return err
	}
	defer f.Close()
	size := l.DiskSize
	if size == 0 {
		size = 16 << 30
	}
	return f.Truncate(size)
}

// Hardware reports whether the CPU can run guests of guests (vmx or svm among
// its flags and a /dev/kvm to use). A /dev/kvm alone does not tell.
func Hardware() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, f := range strings.Fields(flags) {
			if f == "vmx" || f == "svm" {
				k, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
				if err != nil {
					return false
				}
				k.Close()
				return true
			}
		}
		return false
	}
	return false
}

// args is QEMU's command line.
func (l *Lab) args() ([]string, error) {
	memory, cpus := l.Memory, l.CPUs
	if memory == "" {
		memory = "4G"
	}
	hardware := Hardware() && !l.Repeatable
	if cpus == 0 {
		cpus = 1
		if hardware {
			cpus = min(4, runtime.NumCPU())
		}
	}
	a := []string{"-name", "ashlar-lab", "-nodefaults", "-display", "none", "-no-user-config"}
	const emulated, host = "EPYC,+svm,+npt,phys-bits=36", "host,host-phys-bits-limit=37" // see low
	switch {
	case l.Repeatable:
		a = append(a, "-M", "q35", "-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-cpu", emulated)
	case hardware:
		a = append(a, "-M", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", host)
	default:
		// They run on one CPU (onecpu), where a thread for each would have them wait for each other.
		threads := "multi"
		if cpus > 1 {
			threads = "single"
		}
		a = append(a, "-M", "q35", "-accel", "tcg,thread="+threads, "-cpu", emulated)
	}
	a = append(a, "-smp", strconv.Itoa(cpus), "-m", memory,
		"-fw_cfg", low,
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,format=raw,file="+l.Path(varsFile),
		"-device", "qemu-xhci,id=usb",
		"-drive", "if=none,id=stick,format=raw,file="+l.Path(StickFile),
		"-device", "usb-storage,drive=stick,removable=on,bootindex=1",
		"-netdev", fmt.Sprintf("user,id=mgmt,hostfwd=tcp:127.0.0.1:%d-:8443", l.Port),
		"-device", "e1000e,netdev=mgmt,romfile=,mac="+ManagementMAC,
		"-device", "pcie-root-port,id=rp1,chassis=1",
		"-netdev", "user,id="+WiredDevice+",net=10.0.3.0/24",
		"-device", "igb,bus=rp1,netdev="+WiredDevice+",mac=52:54:00:a5:00:02,romfile=",
		"-device", "virtio-rng-pci",
		"-serial", "file:"+l.Path(SerialFile),
		"-serial", "unix:"+l.Path(RescueFile)+",server=on,wait=off",
		"-qmp", "unix:"+l.Path(qmpFile)+",server=on,wait=off",
	)
	if l.DiskSocket != "" {
		a = append(a,
			"-blockdev", "driver=nbd,node-name="+DiskNode+",export=,server.type=unix,server.path="+l.DiskSocket,
			"-device", "virtio-blk-pci,id="+DiskID+",serial=ashlar-data,drive="+DiskNode)
	} else if !l.NoDisk {
		bus := ""
		if l.PluggableDisk {
			a, bus = append(a, "-device", "pcie-root-port,id=rpdata,chassis=9"), ",bus=rpdata"
		}
		a = append(a,
			"-drive", "if=none,id=data,node-name="+DiskNode+",format=raw,cache=writeback,discard=unmap,file="+l.Path(DiskFile),
			"-device", "nvme,id="+DiskID+",serial=ashlar-data,drive=data"+bus)
	}
	nodes, err := l.numa(memory, cpus)
	if err != nil {
		return nil, err
	}
	iommu, err := l.iommu()
	if err != nil {
		return nil, err
	}
	return slices.Concat(iommu, a, l.spare(), nodes, l.Args), nil
}

// PID is QEMU's process, 0 where it does not run.
func (l *Lab) PID() int {
	b, err := os.ReadFile(l.Path(pidFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte("ashlar-lab")) {
		return 0
	}
	return pid
}

// Running reports whether QEMU runs.
func (l *Lab) Running() bool { return l.PID() != 0 }

// Serial is what the host has printed on its console.
func (l *Lab) Serial() string {
	b, _ := os.ReadFile(l.Path(SerialFile))
	return string(b)
}

// Tail is the end of Serial.
func (l *Lab) Tail() string {
	lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(l.Serial()), "\r", ""), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// WaitReady waits until the host has said that its API answers, and it does.
func (l *Lab) WaitReady(ctx context.Context) error {
	if err := l.WaitSerial(ctx, Ready); err != nil {
		return err
	}
	for {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", l.Port), time.Second)
		if err == nil {
			c.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the host's API does not answer: %w\n%s", err, l.Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// WaitSerial waits until the host has printed want on its console.
func (l *Lab) WaitSerial(ctx context.Context, want string) error {
	for {
		if strings.Contains(l.Serial(), want) {
			return nil
		}
		if !l.Running() {
			return fmt.Errorf("QEMU ended before the host printed %q; the end of its console:\n%s", want, l.Tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the host did not print %q in time; the end of its console:\n%s", want, l.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// WaitEnd waits until QEMU has ended.
func (l *Lab) WaitEnd(ctx context.Context) error {
	for l.Running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the host did not switch itself off in time; the end of its console:\n%s", l.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// QMP runs a command of QEMU's.
func (l *Lab) QMP(command string, arguments any) (json.RawMessage, error) {
	q, err := qmp.Dial(l.Path(qmpFile))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	return q.Do(command, arguments)
}

// Monitor runs a command of QEMU's human monitor and returns what that says.
func (l *Lab) Monitor(command string) (text string, err error) {
	b, err := l.QMP("human-monitor-command", map[string]string{"command-line": command})
	if err == nil {
		err = json.Unmarshal(b, &text)
	}
	return text, err
}

// Down presses the host's power button and waits; what has not ended when
// ctx does is cut off.
func (l *Lab) Down(ctx context.Context) error {
	if !l.Running() {
		return nil
	}
	_, err := l.QMP("system_powerdown", nil)
	if err == nil {
		err = l.WaitEnd(ctx)
	}
	if err != nil {
		return errors.Join(err, l.Cut())
	}
	return nil
}

// Cut cuts the power: QEMU is killed.
func (l *Lab) Cut() error {
	pid := l.PID()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill QEMU: %w", err)
	}
	for range 200 {
		if !l.Running() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("QEMU does not end")
}
