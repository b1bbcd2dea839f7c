package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

const testSize = 512 << 20

func sparse(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, testSize); err != nil {
		t.Fatal(err)
	}
	return file
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestInspect looks at disks that real programs have made.
func TestInspect(t *testing.T) {
	put := func(offset int64, text string) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(text), offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	command := func(name string, args ...string) func(*testing.T, string) {
		return func(t *testing.T, file string) { run(t, name, append(args, file)...) }
	}
	for _, test := range []struct {
		name string
		make func(*testing.T, string)
		want Content
		what string
	}{
		{"blank", func(*testing.T, string) {}, Blank, ""},
		{"data in the middle only", put(testSize/2, "x"), Blank, ""},
		{"ours", ours, Data, ""},
		{"XFS of mkfs", command("mkfs.xfs", "-q", "-L", "other"), Foreign, `an XFS file system labelled "other"`},
		{"XFS of mkfs with our label", command("mkfs.xfs", "-q", "-L", Label), Data, ""},
		{"damaged XFS", func(t *testing.T, file string) { ours(t, file); put(40, "damage")(t, file) }, Foreign, "an XFS file system"},
		{"ours, of a larger disk", func(t *testing.T, file string) {
			if err := os.Truncate(file, 2*testSize); err != nil {
				t.Fatal(err)
			}
			run(t, "mkfs.xfs", "-q", "-L", Label, file)
			if err := os.Truncate(file, testSize); err != nil {
				t.Fatal(err)
			}
		}, Foreign, "larger than the disk"},
		{"ext4", command("mkfs.ext4", "-q", "-F"), Foreign, "an ext2, ext3 or ext4 file system"},
		{"FAT", command("mkfs.vfat"), Foreign, "an MBR partition table or a boot sector"},
		{"swap", command("mkswap", "-q"), Foreign, "a swap area"},
		{"GPT", put(512, "EFI PART"), Foreign, "a GPT partition table"},
		{"LUKS", put(0, "LUKS\xba\xbe"), Foreign, "a LUKS encrypted volume"},
		{"LVM", put(512, "LABELONE"), Foreign, "an LVM physical volume"},
		{"RAID", put(4096, "\xfc\x4e\x2b\xa9"), Foreign, "a Linux RAID member"},
		{"btrfs", put(65600, "_BHRfS_M"), Foreign, "a btrfs file system"},
		{"first MiB", put(edge-1, "x"), Foreign, "unknown kind"},
		{"last MiB", put(testSize-edge, "x"), Foreign, "unknown kind"},
		{"last byte", put(testSize-1, "x"), Foreign, "unknown kind"},
		{"a formatting that was cut off", func(t *testing.T, file string) {
			ours(t, file) // all but its last step
			put(0, xfs.Unfinished+strings.Repeat("\x00", 512-len(xfs.Unfinished)))(t, file)
		}, Blank, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := sparse(t)
			test.make(t, file)
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, what, err := Inspect(f, testSize)
			if err != nil || got != test.want || !strings.Contains(what, test.what) {
				t.Errorf("Inspect = %v, %q, %v, want %v, %q", got, what, err, test.want, test.what)
			}
		})
	}
}

// ours prepares a file as Prepare does a disk.
func ours(t *testing.T, file string) {
	t.Helper()
	c := Choice{Disk: Disk{Node: file, Size: testSize}, Action: Format}
	if err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
}

func TestPrepare(t *testing.T) {
	file := sparse(t)
	ours(t, file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := xfs.Probe(f)
	if err != nil || info.Label != Label || info.UUID == [16]byte{} || info.UUID[6]>>4 != 4 {
		t.Errorf("Probe = %+v, %v", info, err)
	}
	mounted := Choice{Disk: Disk{Node: "/nonexistent"}, Action: Mount}
	if err := mounted.Prepare(); err != nil {
		t.Errorf("Prepare of a disk that is ours = %v", err)
	}
	for what, c := range map[string]Choice{
		"holds data by now":                    {Disk: Disk{Node: file, Size: testSize}, Action: Format},
		"holds something else than was chosen": {Disk: Disk{Node: file, Size: testSize}, Action: Format, Erases: "a swap area"},
		"is another":                           {Disk: Disk{Node: file, Size: testSize - 512}, Action: Format},
	} {
		if err := c.Prepare(); err == nil {
			t.Errorf("Prepare of a disk that %s: no error", what)
		}
	}
	if again, err := xfs.Probe(f); err != nil || again.UUID != info.UUID {
		t.Errorf("Probe after refusals = %+v, %v; want %+v", again, err, info)
	}
	other := sparse(t)
	run(t, "mkswap", "-q", other)
	if err := (&Choice{Disk: Disk{Node: other, Size: testSize}, Action: Format}).Prepare(); err == nil {
		t.Error("Prepare of a disk that is not blank any more: no error")
	}
	if err := (&Choice{Disk: Disk{Node: other, Size: testSize}, Action: Format, Erases: "a swap area"}).Prepare(); err != nil {
		t.Errorf("Prepare of a disk that may be erased: %v", err)
	}
	missing := Choice{Disk: Disk{Node: filepath.Join(t.TempDir(), "none"), Size: testSize}, Action: Format}
	if err := missing.Prepare(); err == nil || !strings.HasPrefix(err.Error(), "format "+missing.Disk.Node) {
		t.Errorf("Prepare of a disk that is gone = %v", err)
	}
}

func TestInspectTooShort(t *testing.T) {
	if c, _, err := Inspect(bytes.NewReader(make([]byte, 100)), testSize); err == nil || c != Foreign {
		t.Errorf("Inspect of a disk that cannot be read = %v, %v, want Foreign and an error", c, err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("XFSB"), int64(1<<20))
	f.Add(make([]byte, 8192), int64(8192))
	f.Add([]byte{}, int64(0))
	f.Add([]byte(xfs.Unfinished), int64(4096))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < 0 || size > 4<<20 {
			return
		}
		c, _, err := Inspect(bytes.NewReader(b), size)
		if err != nil && c != Foreign {
			t.Errorf("Inspect = %v with error %v", c, err)
		}
		if c == Blank && !zero(b[:min(int64(len(b)), size)]) && size <= 2*edge && !bytes.HasPrefix(b, []byte(xfs.Unfinished)) {
			t.Error("a disk with data on it is called blank")
		}
	})
}
