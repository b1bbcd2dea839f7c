package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree writes a sysfs tree.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestList(t *testing.T) {
	sysfs := tree(t, map[string]string{
		"block/sda/size":             "65536\n",
		"block/sda/removable":        "1\n",
		"block/sda/ro":               "0\n",
		"block/sda/device/model":     "Flash Drive     \n",
		"block/sda/device/vpd_pg80":  "\x00\x80\x00\x06 AB\x01C ",
		"block/sda/sda1/partition":   "1\n",
		"block/sda/sda1/uevent":      "MAJOR=8\nDEVNAME=sda1\nPARTN=1\nPARTNAME=ASHLAR-CFG\n",
		"block/sda/sda2/partition":   "2\n",
		"block/sda/sda2/uevent":      "DEVNAME=sda2\nPARTN=2\n",
		"block/sda/queue/rotational": "1\n",

		"block/nvme0n1/size":          "2097152\n",
		"block/nvme0n1/device/serial": "S4EVNX0R123456  \n",
		"block/nvme0n1/device/model":  "Samsung SSD 970\n",
		"block/nvme0n1/ro":            "1\n",

		"block/vda/size":          "1\n",
		"block/vda/serial":        "virtual\n",
		"block/vda/device/uevent": "",

		"block/loop0/size":      "100\n", // no device
		"block/sr0/size":        "100\n",
		"block/sr0/device/type": "5\n",
		"block/sdb/size":        "0\n", // an empty card reader
		"block/sdb/device/x":    "",
		"block/sdc/size":        "9223372036854775807\n",
		"block/sdc/device/x":    "",
		"block/sdd/size":        "many\n",
		"block/sdd/device/x":    "",
	})
	got, err := List(sysfs)
	if err != nil {
		t.Fatal(err)
	}
	want := []Disk{
		{Name: "nvme0n1", Node: "/dev/nvme0n1", Size: 1 << 30, Model: "Samsung SSD 970", Serial: "S4EVNX0R123456", ReadOnly: true},
		{Name: "sda", Node: "/dev/sda", Size: 32 << 20, Model: "Flash Drive", Serial: "ABC", Removable: true, Partitions: []Partition{
			{Name: "sda1", Node: "/dev/sda1", Label: "ASHLAR-CFG"},
			{Name: "sda2", Node: "/dev/sda2"},
		}},
		{Name: "vda", Node: "/dev/vda", Size: 512, Serial: "virtual"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p, d, ok := FindPartition(got, "ASHLAR-CFG")
	if !ok || p.Node != "/dev/sda1" || d.Name != "sda" {
		t.Errorf("FindPartition = %v, %v, %v", p, d, ok)
	}
	if _, _, ok := FindPartition(got, "ASHLAR-XYZ"); ok {
		t.Error("FindPartition finds what is not there")
	}
	if got, want := got[0].String(), "/dev/nvme0n1 (1.0 GiB, Samsung SSD 970, serial S4EVNX0R123456)"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
}

func TestListFails(t *testing.T) {
	if _, err := List(t.TempDir()); err == nil {
		t.Error("List of a tree without block = nil error")
	}
}

func FuzzUnitSerial(f *testing.F) {
	f.Add([]byte("\x00\x80\x00\x03abc"))
	f.Add([]byte("\x00\x80\xff\xffabc"))
	f.Add([]byte("\x00\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range unitSerial(b) {
			if r < ' ' || r > '~' {
				t.Errorf("unitSerial(%q) has %q in it", b, r)
			}
		}
	})
}

func FuzzVariable(f *testing.F) {
	f.Add([]byte("A=b\nPARTNAME=x\n"))
	f.Add([]byte("PARTNAME="))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(variable(b, "PARTNAME")) > len(b) {
			t.Error("a value longer than the file")
		}
	})
}
