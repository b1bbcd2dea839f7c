package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/google/go-cmp/cmp"
)

func id(n int) string { return fmt.Sprintf("%032x", n) }

func refusedAs(err error) hostcall.Code {
	var e *hostcall.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// open returns a store with the sealed image 1 of 1000 bytes and the unsealed image 2.
func open(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	images, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		f, err := images.Create(id(n), 1000)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("image")
		f.Close()
	}
	if err := images.Seal(id(1)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "guests"), images)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestLife(t *testing.T) {
	s := open(t)
	disks := []hostcall.Disk{{Image: id(1)}, {Image: id(1), Size: 4096}, {Size: 1 << 20}}
	if err := s.Create(id(7), disks); err != nil {
		t.Fatalf("Create: %v", err)
	}
	files, err := s.OpenDisks(id(7), []int{0, 1, 2}, []int64{1024, 4096, 1 << 20})
	if err != nil || len(files) != 3 {
		t.Fatalf("OpenDisks = %v, %v", files, err)
	}
	for i, want := range []int64{1024, 4096, 1 << 20} {
		info, err := files[i].Stat()
		if err != nil || info.Size() != want {
			t.Errorf("disk %d: %v, %v; want %d bytes", i, info, err, want)
		}
		files[i].Close()
	}
	if b, err := os.ReadFile(s.path(id(7), "disk-1")); err != nil || string(b[:5]) != "image" {
		t.Errorf("disk 1 = %q, %v", b[:5], err)
	}
	if err := s.Create(id(7), nil); refusedAs(err) != hostcall.AlreadyExists {
		t.Errorf("second Create: %v", err)
	}
	if _, err := s.OpenLog(id(7)); refusedAs(err) != hostcall.FailedPrecondition {
		t.Errorf("OpenLog before the first start: %v", err)
	}
	for _, text := range []string{"first", "second"} {
		f, err := s.NewLog(id(7))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(text)
		f.Close()
		for range 2 {
			if err := s.KeepLog(id(7)); err != nil {
				t.Errorf("KeepLog: %v", err)
			}
		}
	}
	// Starts that fail, and one that core did not live to see.
	for range 3 {
		f, err := s.NewLog(id(7))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for range 2 {
		if err := s.DropLog(id(7)); err != nil {
			t.Errorf("DropLog: %v", err)
		}
	}
	for name, want := range map[string]string{logName: "second", oldLogName: "first"} {
		if b, err := os.ReadFile(s.path(id(7), name)); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v; want %q", name, b, err, want)
		}
	}
	nics := []Interface{{MAC: "02:00:00:00:00:01", Network: "lan", Address: "10.0.0.2"}}
	if got, err := s.Interfaces(id(7)); got != nil || err != nil {
		t.Errorf("Interfaces at first = %v, %v", got, err)
	}
	if err := s.SetInterfaces(id(7), nics); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Interfaces(id(7)); err != nil || !cmp.Equal(got, nics) {
		t.Errorf("Interfaces = %v, %v; want %v", got, err, nics)
	}
	if got, err := s.List(); err != nil || !cmp.Equal(got, []string{id(7)}) {
		t.Errorf("List = %v, %v", got, err)
	}
	if err := s.Delete(id(7)); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if got := entries(t, s.dir); got != nil {
		t.Errorf("left behind: %v", got)
	}
	if err := s.Delete(id(7)); refusedAs(err) != hostcall.NotFound {
		t.Errorf("second Delete: %v", err)
	}
	if _, err := s.OpenLog(id(7)); refusedAs(err) != hostcall.NotFound {
		t.Errorf("OpenLog of no guest: %v", err)
	}
}

// TestCreateRefused also looks that nothing is left behind.
func TestCreateRefused(t *testing.T) {
	s := open(t)
	good := hostcall.Disk{Image: id(1)}
	tests := []struct {
		name  string
		disks []hostcall.Disk
		code  hostcall.Code
		field string
	}{
		{"negative size", []hostcall.Disk{good, {Size: -512}}, hostcall.InvalidArgument, "disks[1].size"},
		{"odd size", []hostcall.Disk{{Size: 513}}, hostcall.InvalidArgument, "disks[0].size"},
		{"nothing", []hostcall.Disk{{}}, hostcall.InvalidArgument, "disks[0].size"},
		{"huge", []hostcall.Disk{{Size: 1 << 62}}, hostcall.InvalidArgument, "disks[0].size"},
		{"more than there is", []hostcall.Disk{good, {Size: image.MaxSize}}, hostcall.ResourceExhausted, "disks[1].size"},
		{"smaller than its image", []hostcall.Disk{{Image: id(1), Size: 512}}, hostcall.InvalidArgument, "disks[0].size"},
		{"no such image", []hostcall.Disk{good, good, {Image: id(5)}}, hostcall.NotFound, "disks[2].image"},
		{"image not complete", []hostcall.Disk{{Image: id(2)}}, hostcall.FailedPrecondition, "disks[0].image"},
		{"image is a path", []hostcall.Disk{{Image: "../x"}}, hostcall.InvalidArgument, "disks[0].image"},
		{"too many", make([]hostcall.Disk, MaxDisks+1), hostcall.InvalidArgument, "disks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := s.Create(id(7), tt.disks)
			var e *hostcall.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Field != tt.field {
				t.Errorf("Create = %#v, want %s of %s", err, tt.code, tt.field)
			}
			if got := entries(t, s.dir); got != nil {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}

func TestOpenClearsRemains(t *testing.T) {
	s := open(t)
	for _, name := range []string{tempPrefix + id(1), deadPrefix + id(2), id(3)} {
		if err := os.MkdirAll(s.path(name, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(s.dir, s.images); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, s.dir); !cmp.Equal(got, []string{id(3)}) {
		t.Errorf("left: %v, want the guest alone", got)
	}
}

func TestInterfacesDamaged(t *testing.T) {
	s := open(t)
	if err := s.Create(id(7), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(id(7), nicsName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Interfaces(id(7)); err == nil {
		t.Errorf("Interfaces = %v from a damaged file", got)
	}
}

func TestOpenDisksWantsEveryDisk(t *testing.T) {
	s := open(t)
	if err := s.Create(id(7), []hostcall.Disk{{Size: 4096}, {Size: 4096}}); err != nil {
		t.Fatalf("Create: %v", err)
	}
	refused := func(field string, sizes ...int64) {
		t.Helper()
		files, err := s.OpenDisks(id(7), []int{0, 1, 2, 3}[:len(sizes)], sizes)
		var e *hostcall.Error
		if files != nil || !errors.As(err, &e) || e.Code != hostcall.FailedPrecondition || e.Field != field {
			t.Errorf("OpenDisks(%v) = %v, %v; want a refusal that names %s", sizes, files, err, field)
		}
	}
	refused("guest.disks", 4096)
	refused("guest.disks[2]", 4096, 4096, 4096)
	refused("guest.disks[1]", 4096, 4608)
	if err := os.Remove(s.diskPath(id(7), 0)); err != nil {
		t.Fatal(err)
	}
	refused("guest.disks[0]", 4096, 4096)
	if err := os.Mkdir(s.diskPath(id(7), 0), 0o700); err != nil {
		t.Fatal(err)
	}
	refused("guest.disks[0]", 4096, 4096)
}

func TestGrow(t *testing.T) {
	s := open(t)
	if err := s.Create(id(7), []hostcall.Disk{{Image: id(1)}, {Size: 1 << 20}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		guest string
		disk  int
		size  int64
		want  hostcall.Code
	}{
		{"larger", id(7), 1, 2 << 20, ""},
		{"the same", id(7), 1, 2 << 20, ""},
		{"an image of an odd size", id(7), 0, 4096, ""},
		{"smaller", id(7), 1, 1 << 20, hostcall.InvalidArgument},
		{"negative", id(7), 1, -4096, hostcall.InvalidArgument},
		{"odd", id(7), 1, 2<<20 + 512, hostcall.InvalidArgument},
		{"too large", id(7), 1, image.MaxSize + 4096, hostcall.InvalidArgument},
		{"more than there is", id(7), 1, image.MaxSize, hostcall.ResourceExhausted},
		{"no such disk", id(7), 2, 4096, hostcall.InvalidArgument},
		{"disk -1", id(7), -1, 4096, hostcall.InvalidArgument},
		{"no such guest", id(8), 0, 4096, hostcall.NotFound},
	} {
		if err := s.Grow(tt.guest, tt.disk, tt.size); refusedAs(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%s: Grow = %v, want %q", tt.name, err, tt.want)
		}
	}
	disks, err := s.AllDisks(id(7))
	if err != nil || len(disks) != 2 {
		t.Fatalf("AllDisks = %v, %v", disks, err)
	}
	for i, want := range []int64{4096, 2 << 20} {
		if info, err := disks[i].Stat(); err != nil || info.Size() != want {
			t.Errorf("disk %d: %v, %v; want %d bytes", i, info, err, want)
		}
		disks[i].Close()
	}
}
