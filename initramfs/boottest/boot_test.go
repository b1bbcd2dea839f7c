package boottest

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// TestBlankDisk boots twice with the same disk: it is formatted once, and the
// power button leaves it clean.
func TestBlankDisk(t *testing.T) {
	file := blankDisk(t)
	doc := document(t, "{interface: auto}", "[{serial: blank}]")
	args := func() []string { return join(stick(t, doc), nvme(file, "blank"), userNetwork()) }

	m := boot(t, "", args()...)
	m.wait("ASHLAR READY 10.0.2.15:8443 in ")
	m.says(true, "configuration partition /dev/sda", "host name boottest", "has 10.0.2.15/24",
		"formatting /dev/nvme0n1 (1.0 GiB, QEMU NVMe Ctrl, serial blank): it is blank", "\n  data         /dev/nvme0n1",
		"rescue: not asked for: its commands are removed")
	m.says(false, "problem ", "failed:", "starting it again")
	m.powerButton()
	m.end()
	m.says(true, "the power button was pressed: stopping guests, then powering off", "data disk unmounted")
	if out, err := exec.Command("xfs_repair", "-n", "-f", file).CombinedOutput(); err != nil {
		t.Errorf("the disk is not clean: %v (package xfsprogs)\n%s", err, out)
	}

	m = boot(t, "", args()...)
	m.wait("ASHLAR READY 10.0.2.15:8443 in ")
	m.says(true, "\n  data         /dev/nvme0n1")
	m.says(false, "formatting", "problem ")
}

// TestNothingThere boots without disk and network interface, and with a
// configuration with an error.
func TestNothingThere(t *testing.T) {
	good := document(t, "{interface: auto}", "[]")
	bad := bytes.Replace(good, []byte("hostname: boottest"), []byte("hostnam: boottest"), 1)
	m := boot(t, "", damagedStick(t, good, bad)...)
	m.wait("ASHLAR READY ")
	m.says(true,
		"configuration: failed: ashlar.yaml: line 2, column 1: hostnam",
		"network: failed: no interface with a carrier",
		"No operator's CA is configured, so the API lets nobody in",
		"No data disk is configured")
	m.powerButton()
	m.end()
	m.says(true, "powering off after")
}

// TestForeignDisk boots with a disk that holds something: it is not touched.
func TestForeignDisk(t *testing.T) {
	file := blankDisk(t)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("precious"), 1<<30-4096); err != nil {
		t.Fatal(err)
	}
	doc := document(t, "{interface: auto, static: {address: 10.0.2.77/24, gateway: 10.0.2.2}}", "[{any: true}]")
	m := boot(t, "", join(stick(t, doc), nvme(file, "full"), userNetwork())...)
	m.wait("ASHLAR READY 10.0.2.77:8443 in ")
	m.says(true,
		"The disk /dev/nvme0n1 (1.0 GiB, QEMU NVMe Ctrl, serial full) holds data of an unknown kind.",
		"guests and images are kept in memory")
	m.says(false, "formatting", "boot stick")
	got := make([]byte, 8)
	if _, err := f.ReadAt(got, 1<<30-4096); err != nil || string(got) != "precious" {
		t.Errorf("the disk now holds %q, %v", got, err)
	}
}
