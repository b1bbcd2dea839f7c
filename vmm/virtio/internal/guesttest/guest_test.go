//go:build roottest

package guesttest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// What roottest puts into the machine.
const (
	kernel    = "/guest-bzImage"
	initramfs = "/virtio-guest.cpio"
)

const (
	diskSize   = 16 << 20
	memorySize = 256 << 20
	patience   = 3 * time.Minute
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A builder collects a Spec and its descriptors.
type builder struct {
	t     *testing.T
	spec  protocol.Spec
	files []*os.File
}

func (b *builder) add(f *os.File, err error) protocol.File {
	b.t.Helper()
	must(b.t, err)
	b.files = append(b.files, f)
	return protocol.File(len(b.files) - 1)
}

// disk makes a file of diskSize bytes that begins with text.
func (b *builder) disk(text string, flags int) string {
	b.t.Helper()
	name := filepath.Join(b.t.TempDir(), "disk")
	must(b.t, os.WriteFile(name, []byte(text), 0o600))
	must(b.t, os.Truncate(name, diskSize))
	f := b.add(os.OpenFile(name, flags, 0))
	b.spec.Disks = append(b.spec.Disks, protocol.Disk{
		File: f, ReadOnly: flags&os.O_RDWR == 0, Serial: fmt.Sprintf("disk%d", len(b.spec.Disks)),
	})
	return name
}

// tap makes a tap interface with the address 10.99.n.1 and so many queues.
func tap(t *testing.T, n byte, queues int) ([]*os.File, net.IP) {
	t.Helper()
	r, err := unix.NewIfreq(fmt.Sprintf("guest%d", n))
	must(t, err)
	var files []*os.File
	for range queues {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		must(t, err)
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if queues > 1 {
			r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
		}
		must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, r))
		files = append(files, os.NewFile(uintptr(fd), "tap"))
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(s)
	ip := net.IP{10, 99, n, 1}
	must(t, r.SetInet4Addr(ip))
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFADDR, r))
	must(t, r.SetInet4Addr(net.IP{255, 255, 255, 0}))
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFNETMASK, r))
	r.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r))
	return files, ip
}

// echo answers on ip for the time of the test.
func echo(t *testing.T, ip net.IP) net.Addr {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, err := io.ReadAll(c)
				if err == nil {
					_, err = c.Write(b)
				}
				if err != nil {
					t.Logf("echo: %v", err)
				}
			}()
		}
	}()
	return l.Addr()
}

func TestGuest(t *testing.T) {
	for i, tt := range []struct {
		name  string
		vhost bool
		cpus  int
		flags int // of the disk
		start func(*testing.T) *vmm
	}{
		{"vhost-net, 2 CPUs, 2 pairs", true, 2, os.O_RDWR, startMarked},
		{"vhost-net, 1 CPU", true, 1, os.O_RDWR, startVMM},
		{"user space, 1 CPU, O_DIRECT", false, 1, os.O_RDWR | unix.O_DIRECT, startVMM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &builder{t: t, spec: protocol.Spec{Name: "virtio", VCPUs: tt.cpus, MemoryBytes: memorySize}}
			taps, ip := tap(t, byte(i), tt.cpus)
			nic := protocol.NIC{MAC: "02:00:00:00:00:01", MTU: 1500}
			for _, f := range taps {
				pair := protocol.Pair{Tap: b.add(f, nil)}
				if tt.vhost {
					v := b.add(os.OpenFile("/dev/vhost-net", os.O_RDWR, 0))
					pair.Vhost = &v
				}
				nic.Pairs = append(nic.Pairs, pair)
			}
			b.spec.NICs = []protocol.NIC{nic}
			written := b.disk("", tt.flags)
			b.disk("read-only", os.O_RDONLY)
			i := b.add(os.Open(initramfs))
			b.spec.Boot = protocol.Boot{
				Kernel: b.add(os.Open(kernel)), Initramfs: &i,
				Cmdline: fmt.Sprintf("console=ttyS0 quiet panic=-1 disk=disk0 peer=%s pairs=%d", echo(t, ip), tt.cpus),
			}
			b.run(tt.start(t))
			checkDisk(t, written)
		})
	}
}

// run runs the guest, in the VMM process v in its jail as core starts it, until it
// has powered off, and checks what it said.
func (b *builder) run(v *vmm) {
	t := b.t
	b.startIn(v)
	if got, want := v.watches("/dev/net/tun"), b.spec.NICs[0].Pairs[0].Vhost == nil; got != want {
		t.Errorf("the VMM is woken for packets: %v, want %v", got, want)
	}
	said := make(chan string)
	go b.listen(v.console(), said)
	text := <-said // until the VMM has ended
	v.ended()
	for _, want := range []string{"guest: passed", "guest: hello from hvc0"} {
		if !strings.Contains(text, want) {
			t.Errorf("guest has not said %q", want)
		}
	}
}

// startIn starts the guest in a VMM process that has none yet.
func (b *builder) startIn(v *vmm) *vmm {
	t := b.t
	b.spec.KVM = b.add(os.OpenFile("/dev/kvm", os.O_RDWR, 0))
	b.spec.Memory = b.add(memory.Create("guest", memorySize+b.spec.Pluggable.Max()))
	b.spec.Entropy = b.add(os.Open("/dev/urandom"))
	b.spec.Log = b.add(os.CreateTemp(t.TempDir(), "log"))
	b.spec.Jail = protocol.Jail{UID: jailUID, GID: jailUID}
	v.call(protocol.Request{Method: protocol.Configure, Spec: &b.spec}, b.files...)
	seqpacket.CloseAll(b.files)
	return v
}

// A vmm is a running VMM process, and core's end of its socket.
type vmm struct {
	t      *testing.T
	cmd    *exec.Cmd
	conn   *seqpacket.Conn
	result *os.File
	id     uint64
}

// jailUID is a VMM's user and group.
const jailUID = 100001

func startVMM(t *testing.T) *vmm {
	t.Helper()
	return startProgram(t, "/bin/ashlar-vmm")
}

func startProgram(t *testing.T, program string, argv ...string) *vmm {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmm.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	f, err := l.File()
	must(t, err)
	defer f.Close()
	v := &vmm{t: t}
	v.result, err = os.CreateTemp(t.TempDir(), "result")
	must(t, err)
	v.cmd = exec.Command(program, argv...)
	v.cmd.ExtraFiles = []*os.File{f, v.result} // protocol.ListenFD, protocol.ResultFD
	v.cmd.Stdout, v.cmd.Stderr = os.Stderr, os.Stderr
	v.cmd.SysProcAttr = jail.Attributes(jailUID, jailUID)
	must(t, v.cmd.Start())
	// As init and core let it; in its user namespace it cannot do so itself.
	for resource, most := range map[int]uint64{unix.RLIMIT_NOFILE: 1 << 20, unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY} {
		must(t, unix.Prlimit(v.cmd.Process.Pid, resource, &unix.Rlimit{Cur: most, Max: most}, nil))
	}
	// Whatever happens it does not stay; what it ends with is for ended.
	stop := time.AfterFunc(patience, func() {
		t.Errorf("the guest has not ended in %v", patience)
		v.cmd.Process.Kill()
	})
	t.Cleanup(func() {
		stop.Stop()
		v.cmd.Process.Kill()
	})
	v.conn, err = seqpacket.Dial(path)
	must(t, err)
	t.Cleanup(func() { v.conn.Close() })
	return v
}

// watches tells whether the VMM sleeps until something happens to a descriptor of that file, whoever
// else has it.
func (v *vmm) watches(file string) bool {
	v.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", v.cmd.Process.Pid)
	fds, err := os.ReadDir(proc + "fd")
	must(v.t, err)
	polls := 0
	for _, fd := range fds {
		if name, _ := os.Readlink(proc + "fd/" + fd.Name()); name != "anon_inode:[eventpoll]" {
			continue
		}
		polls++
		info, err := os.ReadFile(proc + "fdinfo/" + fd.Name())
		must(v.t, err)
		for line := range strings.Lines(string(info)) {
			var target int
			if _, err := fmt.Sscanf(line, "tfd: %d", &target); err != nil {
				continue
			}
			if name, _ := os.Readlink(fmt.Sprintf("%sfd/%d", proc, target)); name == file {
				return true
			}
		}
	}
	if polls == 0 {
		v.t.Error("the VMM waits for nothing (epoll)")
	}
	return false
}

// call sends a request and returns what came back.
func (v *vmm) call(r protocol.Request, files ...*os.File) (protocol.Response, []*os.File) {
	v.t.Helper()
	v.id++
	r.ID = v.id
	must(v.t, v.conn.Send(r, files...))
	var resp protocol.Response
	got, err := v.conn.Recv(&resp)
	must(v.t, err)
	if resp.Error != nil {
		v.t.Fatalf("%s: %s (%s)", r.Method, resp.Error.Message, resp.Error.Field)
	}
	return resp, got
}

// console is a stream of what the guest prints.
func (v *vmm) console() io.Reader {
	v.t.Helper()
	_, files := v.call(protocol.Request{Method: protocol.Console})
	if len(files) != 1 {
		v.t.Fatalf("%d descriptors for a console", len(files))
	}
	v.t.Cleanup(func() { files[0].Close() })
	return files[0]
}

// ended waits for the process and checks that the guest has powered off.
func (v *vmm) ended() {
	v.t.Helper()
	if err := v.cmd.Wait(); err != nil {
		v.t.Errorf("VMM: %v", err)
	}
	var r protocol.Result
	b, err := os.ReadFile(v.result.Name())
	must(v.t, err)
	if err := json.Unmarshal(b, &r); err != nil || r.Reason != protocol.PoweredOff {
		v.t.Errorf("guest ended with %q, %v; want %s", b, err, protocol.PoweredOff)
	}
}

// listen collects and logs what the guest says.
func (b *builder) listen(view io.Reader, said chan<- string) {
	var text strings.Builder
	for s := bufio.NewScanner(view); s.Scan(); {
		text.WriteString(s.Text() + "\n")
		b.t.Logf("guest says: %s", s.Text())
	}
	said <- text.String()
}

// checkDisk looks for what the guest wrote and zeroed, as the host sees it.
func checkDisk(t *testing.T, name string) {
	t.Helper()
	content, err := os.ReadFile(name)
	must(t, err)
	if len(content) != diskSize {
		t.Fatalf("disk has %d bytes, want %d", len(content), diskSize)
	}
	const written = 8 << 20
	if bytes.Equal(content[:4096], make([]byte, 4096)) {
		t.Error("nothing of what the guest wrote is on the disk")
	}
	if !bytes.Equal(content[written:written+1<<20], make([]byte, 1<<20)) {
		t.Error("what the guest zeroed is not zero on the disk")
	}
}
