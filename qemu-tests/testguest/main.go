// Testguest is the init of a small guest for the lab's tests.
//
// It mounts what it needs, asks DHCP for an address on eth0 where there is one,
// prints a line `TESTGUEST ready …`, and then takes commands, a line each, on
// its console. Every answer is a line that starts with `OK` or `ERR`:
//
//	poweroff, reboot, halt     end
//	mem, cpus                  what the guest sees
//	online                     bring all CPUs online that have come
//	spin                       keep a thread busy for ever
//	topology                   socket:core of every CPU, and which are threads of a core
//	read FILE                  what is in a file, in one line
//	list FOLDER                what is in a folder
//	starve SECONDS             a watchdog that is not fed; what it says of the last start
//	crash                      a panic of the kernel
//	nmis                       non-maskable interrupts so far, on all CPUs
//	ping ADDRESS               one ICMP echo
//	tcp ADDRESS:PORT TEXT      connect, send, and show what comes back
//	serve PORT                 take and give streams by TCP from now on
//	stream ADDRESS:PORT send|receive KIB
//	                           to or from a guest that serves: how many nanoseconds it took
//	reread DEVICE              read it over and over, past the page cache, until it is gone: `REREAD ends` then
//	flood NAME ADDRESS:PORT    datagrams by a network device until it is gone, `FLOOD ends` then
//	timed COMMAND…             another command: how many nanoseconds it took
//	write DEVICE SEED MIB      fill with a pattern and fsync
//	check DEVICE SEED MIB      compare with the pattern
//	keep DEVICE                keep it open, and so in memory what is cached of it
//	log DEVICE                 write numbered blocks for ever, after those that are there: `ACK N` after each fsync
//	hog KIND WHAT              take all CPU, memory (MiB), disk (DEVICE) or network (ADDRESS) for ever
//	latency DEVICE ADDRESS N   N times: a block written and flushed, a ping, a sleep: median and longest in µs
//	fill MIB, drop             take memory and write to it, or give that back
//	unbind DRIVER              take a virtio driver's devices away from it
//	touch ADDRESS MIB          write to physical addresses
//	send ADDRESS:PORT DEVICE MIB   what is in the device, and show the line that comes back
//	last DEVICE                the highest number that log has left
//	vsock-echo PORT            send back what comes to a port of the socket device
//	vsock-connect CID PORT     connect to another's
//	port-echo NAME             greet who connects to a serial port, and send back what comes
//	port-say NAME WORD         say something at a serial port, and close it
//	hvc WORD                   print on hvc0
//	interrupts WORD            so far on all CPUs, of devices with WORD in their names
//	run DEVICE PROGRAM ARGS…   a program of the root that is on a disk (ext4): the end of its output
//	start DEVICE PROGRAM ARGS… the same in the background: `ENDED …` at its end
//
// The ACPI power button switches it off.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	mounts()
	go powerButton()
	fmt.Printf("TESTGUEST ready cpus=%d mem=%dMiB net=%s\n", runtime.NumCPU(), memory()>>20, network("eth0"))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) == 0 {
			continue
		}
		out, err := command(f)
		if err != nil {
			fmt.Printf("ERR %s: %v\n", f[0], err)
			continue
		}
		fmt.Printf("OK %s %s\n", f[0], out)
	}
	fmt.Println("ERR console closed:", in.Err())
	end(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func mounts() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Printf("ERR mount %s: %v\n", m[1], err)
		}
	}
}

func end(how int) {
	unix.Sync()
	if err := unix.Reboot(how); err != nil {
		fmt.Println("ERR reboot:", err)
	}
	select {}
}

// powerButton waits for KEY_POWER on any input device (linux/input.h).
func powerButton() {
	const evKey, keyPower = 1, 116
	var paths []string
	for range 100 {
		if paths, _ = filepath.Glob("/dev/input/event*"); len(paths) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, p := range paths {
		go func() {
			f, err := os.Open(p)
			if err != nil {
				return
			}
			defer f.Close()
			for b := make([]byte, 24); ; {
				if _, err := io.ReadFull(f, b); err != nil {
					return
				}
				if binary.LittleEndian.Uint16(b[16:]) == evKey && binary.LittleEndian.Uint16(b[18:]) == keyPower && b[20] == 1 {
					fmt.Println("TESTGUEST power button")
					end(unix.LINUX_REBOOT_CMD_POWER_OFF)
				}
			}
		}()
	}
}

func memory() uint64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 0
	}
	return i.Totalram * uint64(i.Unit)
}

// network brings a network device up by DHCP and returns `address,gateway`, or why not.
func network(name string) string {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return "none"
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return "error:" + err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := nclient4.New(name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(8))
	if err != nil {
		return "error:" + err.Error()
	}
	defer c.Close()
	lease, err := c.Request(ctx)
	if err != nil {
		return "error:" + err.Error()
	}
	a := lease.ACK
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.YourIPAddr, Mask: a.SubnetMask()}}); err != nil {
		return "error:" + err.Error()
	}
	gw := a.Router()
	if len(gw) == 0 {
		return a.YourIPAddr.String() + ",none"
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw[0]}); err != nil && !errors.Is(err, unix.EEXIST) {
		return "error:" + err.Error()
	}
	return a.YourIPAddr.String() + "," + gw[0].String()
}

func command(f []string) (string, error) {
	need := map[string]int{"read": 2, "ping": 2, "pingby": 3, "load": 2, "reread": 2, "disk": 2, "nic": 2, "flood": 3, "dhcp": 2, "tcp": 3, "serve": 2, "stream": 4, "write": 4, "check": 4, "keep": 2, "log": 2, "last": 2, "interrupts": 2, "vsock-echo": 2, "vsock-connect": 3, "port-echo": 2, "port-say": 3, "hvc": 2, "list": 2, "starve": 2, "fill": 2, "hog": 3, "latency": 4, "unbind": 2, "touch": 3, "send": 4}
	if n := need[f[0]]; n > 0 && len(f) != n {
		return "", fmt.Errorf("want %d words, got %d", n, len(f))
	}
	switch f[0] {
	case "port-echo", "port-say", "hvc":
		return serialPort(f)
	case "serve", "stream":
		return streams(f)
	case "timed":
		return timed(f[1:])
	case "poweroff":
		end(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "reboot":
		end(unix.LINUX_REBOOT_CMD_RESTART)
	case "halt":
		end(unix.LINUX_REBOOT_CMD_HALT)
	case "mem":
		return strconv.FormatUint(memory(), 10), nil
	case "cpus":
		return strconv.Itoa(runtime.NumCPU()), nil
	case "nmis":
		return nmis()
	case "online":
		return online()
	case "spin":
		spin()
		return "", nil
	case "topology":
		return topology()
	case "read":
		b, err := os.ReadFile(f[1])
		return strings.Join(strings.Fields(string(b)), " "), err
	case "list":
		return list(f[1])
	case "starve":
		return starve(f[1])
	case "crash":
		return "", crash()
	case "ping":
		return "", ping(f[1], "")
	case "pingby":
		return "", ping(f[2], f[1])
	case "load":
		return "", load(f[1])
	case "reread":
		return "", reread(f[1])
	case "flood":
		return "", flood(f[1], f[2])
	case "disk":
		return disk(f[1])
	case "nic":
		return nic(f[1])
	case "dhcp":
		return network(f[1]), nil
	case "tcp":
		return tcp(f[1], f[2])
	case "write", "check":
		return pattern(f[0] == "write", f[1], f[2], f[3])
	case "keep":
		return "", keep(f[1])
	case "hog":
		return "", hog(f[1], f[2])
	case "latency":
		return latency(f[1], f[2], f[3])
	case "fill", "drop", "unbind", "touch", "send":
		return memoryCommand(f)
	case "log":
		return "", writeLog(f[1])
	case "vsock-echo":
		return vsockEcho(f[1])
	case "vsock-connect":
		return vsockConnect(f[1], f[2])
	case "last":
		return last(f[1])
	case "run":
		return run(f[1:])
	case "start":
		return "", start(f[1:])
	case "interrupts":
		return interruptsOf(f[1])
	}
	return "", errors.New("unknown command")
}

// nmis adds up the line `NMI:` of /proc/interrupts.
func nmis() (string, error) {
	return interrupts(func(f []string) (string, bool) { return "", f[0] == "NMI:" })
}

// interruptsOf are those of devices with word in their names.
func interruptsOf(word string) (string, error) {
	return interrupts(func(f []string) (string, bool) {
		name := f[len(f)-1]
		return name + "=", strings.Contains(name, word)
	})
}

// interrupts adds up lines of /proc/interrupts over all CPUs: those that want wants, which
// says what comes before the sum.
func interrupts(want func(line []string) (string, bool)) (string, error) {
	b, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return "", err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		name, ok := want(f)
		if !ok {
			continue
		}
		sum := 0
		for _, s := range f[1:] {
			n, err := strconv.Atoi(s)
			if err != nil {
				break // what it is in words
			}
			sum += n
		}
		out = append(out, name+strconv.Itoa(sum))
	}
	if len(out) == 0 {
		return "", errors.New("/proc/interrupts has no such line")
	}
	return strings.Join(out, " "), nil
}

// topology is what the kernel made of the processors' CPUID, in their order.
func topology() (string, error) {
	var out []string
	for n := range runtime.NumCPU() {
		var word []string
		for _, name := range []string{"physical_package_id", "core_id", "thread_siblings_list"} {
			b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/%s", n, name))
			if err != nil {
				return "", err
			}
			word = append(word, strings.TrimSpace(string(b)))
		}
		out = append(out, strings.Join(word, ":"))
	}
	return strings.Join(out, " "), nil
}

// ping sends one ICMP echo request (RFC 792), by a network device where one is named,
// and waits for its reply.
func ping(address, device string) error {
	to, err := net.ResolveIPAddr("ip4", address)
	if err != nil {
		return err
	}
	c, err := net.DialIP("ip4:icmp", nil, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if device != "" {
		if err := bind(c, device); err != nil {
			return err
		}
	}
	m := []byte{8, 0, 0, 0, 0xa5, 0x5a, 0, 1}
	sum := ^uint16((0x0800 + 0xa55a + 0x0001) % 0xffff)
	binary.BigEndian.PutUint16(m[2:], sum)
	if _, err := c.Write(m); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for b := make([]byte, 1500); ; {
		n, _, err := c.ReadFrom(b) // unlike Read, without the IP header
		if err != nil {
			return err
		}
		if n >= 8 && b[0] == 0 && bytes.Equal(b[4:8], m[4:8]) {
			return nil
		}
	}
}

func tcp(address, text string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c, text); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// pattern writes or checks MIB mebibytes that follow from seed.
func pattern(write bool, device, seed, mib string) (string, error) {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return "", err
	}
	s, err := strconv.ParseUint(seed, 10, 32)
	if err != nil {
		return "", err
	}
	d, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()
	want, got := make([]byte, 1<<20), make([]byte, 1<<20)
	for i := range n {
		for o := 0; o < len(want); o += 8 {
			binary.LittleEndian.PutUint64(want[o:], s<<32^uint64(i<<20+o)*0x9e3779b97f4a7c15)
		}
		if write {
			if _, err := d.Write(want); err != nil {
				return "", err
			}
			continue
		}
		if _, err := io.ReadFull(d, got); err != nil {
			return "", err
		}
		if !bytes.Equal(got, want) {
			return "", fmt.Errorf("MiB %d differs", i)
		}
	}
	return mib, d.Sync()
}

var kept []*os.File

// keep opens a device for good: the kernel forgets what it has cached of one that nobody
// has open.
func keep(device string) error {
	d, err := os.Open(device)
	if err != nil {
		return err
	}
	kept = append(kept, d)
	return nil
}

// A log is a ring of blocks of 4 KiB: number, and a checksum of it.
const (
	blockSize = 4096
	blocks    = 1024
)

func writeLog(device string) error {
	before, err := highest(device)
	if err != nil {
		return err
	}
	d, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	b := make([]byte, blockSize)
	for n := before + 1; ; n++ {
		binary.LittleEndian.PutUint64(b, n)
		binary.LittleEndian.PutUint32(b[blockSize-4:], crc32.ChecksumIEEE(b[:blockSize-4]))
		if _, err := d.WriteAt(b, int64(n%blocks)*blockSize); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
		fmt.Printf("ACK %d\n", n)
		time.Sleep(200 * time.Millisecond) // others need the emulation's one CPU too
	}
}

func last(device string) (string, error) {
	n, err := highest(device)
	return strconv.FormatUint(n, 10), err
}

// highest is the highest number that a log has left, 0 where there is none.
func highest(device string) (n uint64, err error) {
	d, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	b := make([]byte, blockSize)
	for i := range blocks {
		if _, err := d.ReadAt(b, int64(i)*blockSize); err != nil {
			return 0, err
		}
		m := binary.LittleEndian.Uint64(b)
		if m > 0 && binary.LittleEndian.Uint32(b[blockSize-4:]) == crc32.ChecksumIEEE(b[:blockSize-4]) {
			n = max(n, m)
		}
	}
	return n, nil
}
