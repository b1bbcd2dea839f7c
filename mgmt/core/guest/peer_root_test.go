//go:build roottest

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"

	"golang.org/x/sys/unix"
)

// These tests run guests whose VMM is this program again: a peer that speaks
// the protocol, in the real jail, and does what the guest's name says.

const cgroups = "/sys/fs/cgroup"

func TestMain(m *testing.M) {
	if len(os.Args) == 1 && os.Getenv("PATH") == "" {
		os.Exit(peer())
	}
	os.Exit(m.Run())
}

// peer is the VMM.
func peer() int {
	l, err := net.FileListener(os.NewFile(protocol.ListenFD, "listen"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	result := os.NewFile(protocol.ResultFD, "result")
	name, paused, balloon := "", false, protocol.Balloon{}
	var memory memoryPeer
	var disk *os.File
	var panicked time.Time
	vcpus := &protocol.VCPUs{}
	var plugged plugs
	for {
		u, err := l.(*net.UnixListener).AcceptUnix()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		conn := seqpacket.New(u)
		for {
			var r protocol.Request
			files, err := conn.Recv(&r)
			if err != nil {
				conn.Close()
				break
			}
			out := protocol.Response{ID: r.ID, Status: &protocol.Status{State: protocol.Waiting}}
			end := protocol.Result{}
			var send []*os.File
			switch r.Method {
			case protocol.Configure:
				name = r.Spec.Name
				vcpus.Present, vcpus.Target = r.Spec.VCPUs, r.Spec.VCPUs
				fmt.Fprintf(os.Stderr, "configured as %s\n", name)
				if err := settleThreads(r.Spec, files); err != nil {
					out.Error = &protocol.Error{Code: protocol.Internal, Message: err.Error()}
					break
				}
				if name == takenOverName {
					out.Error = takenOver(r.Spec, files)
					break
				}
				if err := jail.Enter(jail.Config{UID: r.Spec.Jail.UID, GID: r.Spec.Jail.GID,
					Filter: jail.Filter{Rules: append(slices.Concat(jail.Messages(), jail.Connections(), jail.Files()), jail.Allow(unix.SYS_FSTATFS, "mapping memory in here"),
						jail.Allow(unix.SYS_MADVISE, "mapping memory in here", jail.Equal(2, unix.MADV_DONTDUMP)),
						jail.Allow(unix.SYS_MADVISE, "touching memory in here", jail.Equal(2, unix.MADV_POPULATE_WRITE)),
						jail.Allow(unix.SYS_SOCKETPAIR, "a descriptor of the wrong kind", jail.Equal(0, unix.AF_UNIX)))}}); err != nil {
					out.Error = &protocol.Error{Code: protocol.Internal, Message: err.Error()}
					break
				}
				out.Error = configured(name, r.Spec, files)
				if len(r.Spec.Disks) > 0 {
					disk = files[r.Spec.Disks[0].File]
				}
				if name == unboundedName {
					go writeOn(disk)
				}
			case protocol.AttachDisk, protocol.AttachNIC, protocol.Detach:
				out.Error = plugged.answer(name, &r, files)
			case protocol.Query:
				if name == "mute" {
					continue
				}
				out.Status.Devices = plugged.devices
				if name != "" {
					out.Status.State = protocol.Running
				}
				if paused {
					out.Status.State = protocol.Paused
				}
				out.Status.Panicked = panicked
			case protocol.Pause, protocol.Resume:
				paused = r.Method == protocol.Pause && name != "restless"
				out.Status.State = protocol.Running
				if paused {
					out.Status.State = protocol.Paused
				}
			case protocol.NMI:
				fmt.Fprintln(os.Stderr, "NMI")
				if name == "panics" {
					panicked = time.Now()
				}
			case protocol.SetVCPUs: // up at once, down one by one
				vcpus.Target = r.VCPUs
				vcpus.Present = max(vcpus.Present-1, r.VCPUs)
				if name == "boastful" {
					vcpus.Present = 1 << 20
				}
			case protocol.SetBalloon:
				balloon.TargetBytes = r.BalloonBytes
			case protocol.BalloonMethod:
				out.Balloon = &balloon
			case protocol.SetMemory, protocol.MemoryMethod:
				out.Memory = memory.answer(name, r)
			case protocol.ResizeDisk:
				if err := growth(disk, int64(r.Size)); err != nil {
					out.Error = &protocol.Error{Code: protocol.Internal, Message: err.Error()}
				}
			case protocol.SetDiskLimits:
				if r.Disk > 0 || r.Limits == nil {
					out.Error = &protocol.Error{Code: protocol.InvalidArgument, Field: "disk", Message: "no such disk"}
				}
			case protocol.CountersMethod:
				out.Counters = counters(name)
			case protocol.HistogramsMethod:
				if name == "rude" {
					out.Error = &protocol.Error{Code: protocol.InvalidArgument, Message: "unknown method"}
				}
				out.Histograms = protocol.Histograms{"disk0.read": {0, 1}}
			case protocol.ResetMethod:
				if name == "stubborn" {
					continue
				}
				end = protocol.Result{Reason: protocol.Reset}
			case protocol.PowerButton:
				if name == "deaf" {
					break
				}
				if paused {
					out.Error = &protocol.Error{Code: protocol.FailedPrecondition, Message: "paused"}
					break
				}
				end = protocol.Result{Reason: protocol.PoweredOff, Message: "bye"}
				if name == "starves" {
					end = protocol.Result{Reason: protocol.WatchdogExpired}
				}
			case protocol.Stop:
				if name == "stubborn" {
					continue
				}
				end = protocol.Result{Reason: protocol.Killed}
			case protocol.Console, protocol.ConnectPort:
				ours, theirs, err := seqpacket.Pair()
				if err == nil && name != "lies" {
					ours.Close()
					theirs.Close()
					ours, theirs, err = streamPair()
				}
				if err == nil {
					io.WriteString(ours, "hello from "+name)
					ours.Close()
					send = append(send, theirs)
				}
			}
			out.Status.VCPUs = vcpus
			conn.Send(out, send...)
			if end.Reason != "" {
				b, _ := json.Marshal(end)
				result.Write(b)
				return 0
			}
		}
	}
}

// counters are those of a guest of this name.
func counters(name string) *protocol.Counters {
	switch name {
	case "chatty":
		c := &protocol.Counters{Devices: map[string]uint64{}}
		for i := range maxCounters + 1 {
			c.Devices[fmt.Sprintf("disk%d.reads", i)] = 1
		}
		return c
	case "rude":
		return &protocol.Counters{VCPUs: map[string][]uint64{"\x1b[2J": {1}}}
	}
	return &protocol.Counters{Devices: map[string]uint64{"disk0.reads": 7, "nic0.rx_bytes": 1 << 60, "nic0.errors": 3},
		VCPUs: map[string][]uint64{"exits": {1, 2}}}
}

// growth writes up to the new end of a disk, and not past it.
func growth(disk *os.File, size int64) error {
	b := make([]byte, 2*4096)
	b = b[-uintptr(unsafe.Pointer(&b[0]))%4096:][:4096] // aligned, for O_DIRECT
	if _, err := disk.WriteAt(b, size-4096); err != nil {
		return fmt.Errorf("write to the new end: %w", err)
	}
	if _, err := disk.WriteAt(b, size); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("write past the new end: %v", err)
	}
	return nil
}

// configured does what a guest of this name does at its start.
func configured(name string, spec *protocol.Spec, files []*os.File) *protocol.Error {
	switch name {
	case "refused":
		return &protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: "Not a bzImage."}
	case "hogs", "greedy", "hoards":
		return touches(name, spec, files)
	case "starved before":
		if !spec.WatchdogExpired {
			return &protocol.Error{Code: protocol.Internal, Message: "The run before ended otherwise."}
		}
	case "dies":
		os.Exit(3)
	case "escapes":
		os.Open("/etc/passwd")
	case "floods":
		go func() {
			for range 2 * maxRunFiles / 4096 {
				os.Stderr.Write(make([]byte, 4096))
			}
		}()
	case "grows":
		for what, place := range map[string]protocol.File{"log": spec.Log, "disk": spec.Disks[0].File} {
			if _, err := files[place].WriteAt(make([]byte, 4096), 8<<20); !errors.Is(err, unix.EFBIG) {
				return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("%s grows: %v", what, err)}
			}
		}
		if _, err := files[spec.Disks[0].File].WriteAt(make([]byte, 4096), 1<<20-4096); err != nil {
			return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("disk: %v", err)}
		}
	}
	b := make([]byte, 6)
	if _, err := files[spec.Boot.Kernel].ReadAt(b, 0); err != nil || string(b) != "kernel" {
		return &protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: fmt.Sprintf("%q, %v", b, err)}
	}
	info, err := files[spec.Memory].Stat()
	if err != nil || uint64(info.Size()) != spec.MemoryBytes+spec.Pluggable.Max() {
		return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("memory: %v, %v", info, err)}
	}
	return nil
}

func streamPair() (*os.File, *os.File, error) {
	fds, err := pair()
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b"), nil
}
