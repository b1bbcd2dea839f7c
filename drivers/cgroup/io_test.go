package cgroup

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIOMaxLine(t *testing.T) {
	d := Disk{259, 3}
	for m, want := range map[IOMax]string{
		{}:               "259:3 rbps=max wbps=max riops=max wiops=max",
		{Bytes: 1 << 40}: "259:3 rbps=1099511627776 wbps=1099511627776 riops=max wiops=max",
		{Operations: 10}: "259:3 rbps=max wbps=max riops=10 wiops=10",
		{1, 1 << 50}:     "259:3 rbps=1 wbps=1 riops=4294967295 wiops=4294967295",
	} {
		if got := ioMax(d, m); got != want {
			t.Errorf("ioMax(%+v) = %q, want %q", m, got, want)
		}
	}
}

func TestParseDisk(t *testing.T) {
	for in, want := range map[string]Disk{"259:0": {259, 0}, "8:16": {8, 16}, "": {}, "8": {}, "8:": {}, ":8": {}, "8:a": {}, "-1:2": {}, "8:99999999999": {}} {
		got, err := parseDisk(in)
		if got != want || (err == nil) != (want != Disk{}) {
			t.Errorf("parseDisk(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}

// What lies in memory is on no disk.
func TestDiskOfMemory(t *testing.T) {
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	defer f.Close()
	if d, err := DiskOf(f); !errors.Is(err, ErrNoDisk) {
		t.Errorf("DiskOf = %v, %v, want ErrNoDisk", d, err)
	}
}
