// Package host reads what there is to know about the machine, from proc(5),
// sysfs(5) and statfs(2).
package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"golang.org/x/sys/unix"
)

// secureBootFile is the UEFI variable SecureBoot, four bytes of attributes
// before its value (UEFI specification, section 3.3).
const secureBootFile = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// Status reads the state of the machine. What cannot be read is left empty.
func Status(info layout.HostInfo, dataDir string, bootToCore time.Duration) hostcall.HostStatus {
	s := hostcall.HostStatus{
		Hostname: info.Hostname, Version: info.Version, KernelVersion: kernelVersion(),
		BootToCore: bootToCore, CPUModel: cpuModel(), CPUs: runtime.NumCPU(),
		PoolDevice: info.DataDevice, Addresses: info.Addresses, Problems: info.Problems,
		KVM: exists("/dev/kvm"), IOMMU: notEmpty("/sys/kernel/iommu_groups"), SecureBoot: secureBoot(),
	}
	s.Uptime, _ = Uptime()
	s.MemoryTotal, s.MemoryAvailable, _ = Memory()
	var fs unix.Statfs_t
	if unix.Statfs(dataDir, &fs) == nil {
		s.PoolTotal = int64(fs.Blocks) * fs.Bsize
		s.PoolFree = int64(fs.Bavail) * fs.Bsize
	}
	return s
}

// Uptime is the time since the kernel was entered.
func Uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory returns the host's memory and what of it can be had now, in bytes.
func Memory() (total, available int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	if total, err = meminfo(b, "MemTotal"); err == nil {
		available, err = meminfo(b, "MemAvailable")
	}
	return total, available, err
}

// meminfo finds a line of /proc/meminfo, which is in KiB.
func meminfo(b []byte, name string) (int64, error) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != name+":" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 53)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("read memory: %s is %q", name, f[1])
		}
		return n << 10, nil
	}
	return 0, errors.New("read memory: no " + name)
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kernelVersion() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func secureBoot() bool {
	b, err := os.ReadFile(secureBootFile)
	return err == nil && len(b) == 5 && b[4] == 1
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func notEmpty(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	return err == nil && len(found) > 0
}
