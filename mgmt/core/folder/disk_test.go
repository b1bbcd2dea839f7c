package folder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// TestAddDisk adds and removes disks of a guest that exists, after a power cut, too.
func TestAddDisk(t *testing.T) {
	s := open(t)
	if err := s.Create(id(7), []hostcall.Disk{{Size: 4096}, {Size: 4096}}); err != nil {
		t.Fatal(err)
	}
	half := s.diskPath(id(7), 3) + halfSuffix
	if err := os.WriteFile(half, make([]byte, 9), 0o600); err != nil { // of a core that was killed
		t.Fatal(err)
	}
	for _, tt := range []struct {
		guest string
		n     int
		d     hostcall.Disk
		made  bool
		want  hostcall.Code
	}{
		{id(7), 3, hostcall.Disk{Image: id(1), Size: 8192}, true, ""},
		{id(7), 3, hostcall.Disk{Image: id(1), Size: 8192}, false, ""},
		{id(7), 15, hostcall.Disk{Size: 512}, true, ""},
		{id(7), 16, hostcall.Disk{Size: 512}, false, hostcall.InvalidArgument},
		{id(7), -1, hostcall.Disk{Size: 512}, false, hostcall.InvalidArgument},
		{id(7), 4, hostcall.Disk{Size: 513}, false, hostcall.InvalidArgument},
		{id(7), 4, hostcall.Disk{Image: id(5)}, false, hostcall.NotFound},
		{id(9), 4, hostcall.Disk{Size: 512}, false, hostcall.NotFound},
	} {
		made, err := s.AddDisk(tt.guest, tt.n, tt.d)
		if made != tt.made || refusedAs(err) != tt.want {
			t.Errorf("AddDisk(%s, %d, %+v) = %v, %v; want %v, %s", tt.guest, tt.n, tt.d, made, err, tt.made, tt.want)
		}
	}
	if err := s.RemoveDisk(id(7), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveDisk(id(7), 1); err != nil {
		t.Errorf("removed again: %v", err)
	}
	disks, err := s.OpenDisks(id(7), []int{0, 3, 15}, []int64{4096, 8192, 512})
	if err != nil {
		t.Fatalf("OpenDisks: %v", err)
	}
	for _, d := range disks {
		d.Close()
	}
	all, err := s.AllDisks(id(7))
	if err != nil || len(all) != 3 {
		t.Errorf("AllDisks = %v, %v", all, err)
	}
	for _, d := range all {
		d.Close()
	}
	if _, err := s.OpenDisks(id(7), []int{0, 3}, []int64{4096, 8192}); refusedAs(err) != hostcall.FailedPrecondition {
		t.Errorf("without the last disk: %v", err)
	}
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Dir(s.path(id(7))), s.images); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(half); err == nil {
		t.Error("a disk that is half made is left behind")
	}
}
