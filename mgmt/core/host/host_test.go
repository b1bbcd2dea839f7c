package host

import (
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
)

func TestStatus(t *testing.T) {
	s := Status(layout.HostInfo{Hostname: "h", Version: "v", DataDevice: "/dev/x"}, t.TempDir(), time.Second)
	if s.Hostname != "h" || s.Version != "v" || s.PoolDevice != "/dev/x" || s.BootToCore != time.Second {
		t.Errorf("what is given: %+v", s)
	}
	if s.KernelVersion == "" || s.CPUModel == "" || s.CPUs < 1 || s.Uptime <= 0 {
		t.Errorf("kernel and processors: %+v", s)
	}
	if s.MemoryTotal <= 0 || s.MemoryAvailable <= 0 || s.MemoryAvailable > s.MemoryTotal || s.PoolTotal <= 0 || s.PoolFree > s.PoolTotal {
		t.Errorf("sizes: %+v", s)
	}
}

func FuzzMeminfo(f *testing.F) {
	f.Add([]byte("MemTotal:  100 kB\nMemAvailable:   7 kB\n"))
	f.Add([]byte("MemAvailable:\n"))
	f.Add([]byte("MemAvailable: -1 kB\n"))
	f.Add([]byte("MemAvailable: 9223372036854775807 kB\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := meminfo(b, "MemAvailable"); n < 0 || err != nil && n != 0 {
			t.Errorf("meminfo = %d, %v", n, err)
		}
	})
}

func TestMeminfo(t *testing.T) {
	b := []byte("MemTotal:  100 kB\nMemAvailable:   7 kB\n")
	if n, err := meminfo(b, "MemAvailable"); n != 7<<10 || err != nil {
		t.Errorf("meminfo = %d, %v; want 7168", n, err)
	}
	if _, err := meminfo(b, "MemFree"); err == nil {
		t.Error("meminfo of what is not there: no error")
	}
}
