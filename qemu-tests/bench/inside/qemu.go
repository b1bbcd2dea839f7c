package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/peer"
	"github.com/ashlar-hv/ashlar/qemu-tests/qmp"
)

// Kinds of QEMU's machines.
const (
	microvmPlain = iota
	microvmPCI
	fullPC
)

// qemuSide starts guests with QEMU.
type qemuSide struct{ kind int }

// machine is the program and the machine of a kind. Without a clock chip (rtc=off, which is microvm's default
// with KVM) a kernel that has the driver, as the guest's and all distributions' have, looks for one for a second, in
// 40,000 exits to QEMU.
func (s qemuSide) machine() (program, machine string) {
	switch s.kind {
	case microvmPlain:
		return peer.Microvm, "microvm,pit=off,pic=off,rtc=on"
	case microvmPCI:
		return peer.Full, "microvm,pcie=on,pit=off,pic=off,rtc=on"
	}
	return peer.Full, "q35"
}

// devices are those that a guest of Ashlar's has unless it is bare, where the guest's kernel has a driver for QEMU's.
func (s qemuSide) devices(sp spec) []string {
	if s.kind == microvmPlain || sp.bare {
		return nil
	}
	return []string{"-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on",
		"-device", "virtio-serial-pci,max_ports=1"}
}

func (s qemuSide) start(b *bench, sp spec) (*guest, error) {
	g := &guest{began: time.Now()}
	program, machine := s.machine()
	socket := fmt.Sprintf("qmp-%d.sock", g.began.UnixNano())
	argv, extra := sp.watch.wrap("/payload", program)
	args := append(argv[1:],
		"-M", machine, "-accel", "kvm", "-cpu", b.cpu(),
		"-smp", fmt.Sprint(sp.cpus), "-m", fmt.Sprint(sp.memoryMiB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-qmp", "unix:/scratch/"+socket+",server=on,wait=off",
		"-kernel", "/payload/kernel", "-initrd", "/payload/"+sp.initramfs, "-append", cmdline+sp.cmdline)
	args = append(args, s.devices(sp)...)
	if sp.disk != "" {
		args = append(args, "-object", "iothread,id=io",
			"-drive", "if=none,id=d,format=raw,cache=none,aio=io_uring,discard=unmap,file="+diskFile("/scratch", sp.disk),
			"-device", "virtio-blk-pci,drive=d,iothread=io")
	}
	if sp.nic != nil {
		files, err := sp.nic.forQEMU()
		if err != nil {
			return nil, err
		}
		defer closeAll(files)
		fd := 3 + len(extra)
		extra = append(extra, files...)
		args = append(args, "-netdev", fmt.Sprintf("tap,id=n,fd=%d,vhost=on,vhostfd=%d", fd, fd+1),
			"-device", "virtio-net-pci,netdev=n,romfile=,mac="+guestMAC)
	}
	g.cmd = exec.Command(argv[0], args...)
	g.cmd.Env, g.cmd.Dir = []string{}, "/"
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: peerRoot}
	g.cmd.ExtraFiles = extra
	said := new(output)
	g.cmd.Stderr, g.said = said, said.String
	in, out, err := pipes(g.cmd)
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	g.console = newConsole(struct {
		io.Reader
		io.Writer
	}{out, in})
	g.close = append(g.close, func() { os.Remove(b.scratchFile(socket)) })
	g.exits = func() (exits, error) { return queryExits(b.scratchFile(socket), sp.cpus) }
	return g, nil
}

// cpu is QEMU's name of the guest's CPU. It has no virtualization of its own, as in a guest of Ashlar's: setting that
// up takes a kernel that has KVM built in part of its start.
func (b *bench) cpu() string {
	const name = "host,-svm,-vmx"
	if b.repeatable {
		return name + ",kvm-pv-eoi=off" // as protocolSpec has it
	}
	return name
}

func pipes(c *exec.Cmd) (in io.Writer, out io.Reader, err error) {
	if in, err = c.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err = c.StdoutPipe()
	return in, out, err
}

// queryExits asks QEMU for what KVM counts.
func queryExits(socket string, cpus int) (exits, error) {
	q, err := qmp.Dial(socket)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	answer, err := q.Do("query-stats", map[string]any{
		"target": "vcpu", "providers": []any{map[string]any{"provider": "kvm", "names": exitKinds}},
	})
	if err != nil {
		return nil, err
	}
	var vcpus []struct {
		Stats []struct {
			Name  string `json:"name"`
			Value uint64 `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(answer, &vcpus); err != nil {
		return nil, fmt.Errorf("query-stats: %w", err)
	}
	sum := make(exits)
	n := 0
	for _, v := range vcpus {
		for _, s := range v.Stats {
			sum[s.Name] += s.Value
			n++
		}
	}
	if n != cpus*len(exitKinds) {
		return nil, errors.New("QEMU does not count exits of each vCPU")
	}
	return sum, nil
}
