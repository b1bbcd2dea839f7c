package xfs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

// TestMount lets the host's kernel format, mount and use disks of several kinds,
// and xfs_repair look at what it left.
func TestMount(t *testing.T) {
	kernel := os.Getenv("ASHLAR_KERNEL")
	if kernel == "" {
		kernel = "../../../out/bzImage"
	}
	if _, err := os.Stat(kernel); err != nil {
		t.Fatalf("%v: `make kernel` makes it; ASHLAR_KERNEL names another", err)
	}
	small, large, nvme := sparse(t, MinSize), sparse(t, 2<<40), sparse(t, 20<<30)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=single", "-cpu", "EPYC,phys-bits=36", "-smp", "2", "-m", "1G",
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", kernel, "-initrd", initramfs(t), "-append", "console=ttyS0 panic=-1",
		"-drive", "if=none,id=a,format=raw,file="+small.Name(), "-device", "virtio-blk-pci,drive=a",
		"-drive", "if=none,id=b,format=raw,file="+large.Name(), "-device", "virtio-blk-pci,drive=b,logical_block_size=4096,physical_block_size=4096",
		"-drive", "if=none,id=c,format=raw,file="+nvme.Name(), "-device", "nvme,drive=c,serial=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mountinit: ok") {
		t.Fatalf("%v: %v; it said:\n%s", cmd.Args, err, out)
	}
	for _, f := range []*os.File{small, large, nvme} {
		if out, err := tool(t, "xfs_repair", "-n", "-f", f.Name()); err != nil {
			t.Errorf("xfs_repair -n after use: %v\n%s", err, out)
		}
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "mountinit:") {
			t.Log(strings.TrimSpace(line))
		}
		if strings.Contains(line, "XFS") && (strings.Contains(line, "orruption") || strings.Contains(line, "rror")) {
			t.Errorf("the kernel said: %s", line)
		}
	}
}

// initramfs is an archive with testdata/mountinit as /init.
func initramfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "./testdata/mountinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build mountinit: %v\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	records := []cpio.Record{cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.StaticFile("init", string(program), 0o755)}
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "initramfs.cpio")
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return archive
}
