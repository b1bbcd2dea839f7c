// Package imagebuild_test boots an image as a server would boot the stick.
package imagebuild_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ashlar-hv/ashlar/image-build/disk"
	"github.com/ashlar-hv/ashlar/image-build/efi"
	"github.com/ashlar-hv/ashlar/image-build/microcode"
	"github.com/ashlar-hv/ashlar/image-build/microcode/microcodetest"
)

// firmware is where Debian and Ubuntu put OVMF.
const firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// kernel is the host's kernel, or the one that ASHLAR_KERNEL names.
func kernel(t *testing.T) []byte {
	t.Helper()
	path := os.Getenv("ASHLAR_KERNEL")
	if path == "" {
		path = "../out/bzImage"
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: `make kernel` makes it; ASHLAR_KERNEL names another", err)
	}
	return b
}

// initramfs is an archive with testdata/bootinit as /init.
func initramfs(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "./testdata/bootinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build bootinit: %v\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	err = cpio.WriteRecords(w, []cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(program), 0o755),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image is a stick that starts kernel with the test's initramfs.
func image(t *testing.T, kernel []byte, cmdline string) string {
	t.Helper()
	return imageOf(t, kernel, initramfs(t), cmdline)
}

// imageOf is a stick that starts kernel with an initramfs.
func imageOf(t *testing.T, kernel, initramfs []byte, cmdline string) string {
	t.Helper()
	stub, err := efi.CompileStub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := efi.Image{Kernel: kernel, Initramfs: initramfs, CommandLine: cmdline, Release: "ID=ashlar\n"}
	b, err := i.Build(stub)
	if err != nil {
		t.Fatal(err)
	}
	b, err = disk.Build(b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "usb.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// uefi are the options of a machine with UEFI firmware.
func uefi(t *testing.T) []string {
	t.Helper()
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatalf("%v: install the package ovmf", err)
	}
	path := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(path, vars, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-M", "q35", "-drive", "if=pflash,format=raw,readonly=on,file=" + firmware, "-drive", "if=pflash,format=raw,file=" + path}
}

// boot starts a machine with the image as a USB stick and waits until its
// serial port has said want. The machine is stopped then; what it has said is returned.
func boot(t *testing.T, image, want string, machine ...string) string {
	t.Helper()
	return bootOn(t, "EPYC,phys-bits=36", image, want, machine...)
}

// bootOn is boot with a certain processor.
func bootOn(t *testing.T, cpu, image, want string, machine ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(machine, "-accel", "tcg,thread=multi", "-cpu", cpu, "-m", "1G",
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none",
		"-device", "qemu-xhci", "-drive", "if=none,id=u,format=raw,file="+image, "-device", "usb-storage,drive=u,bootindex=1")...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed, or has ended by itself
	}()
	var said strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := out.Read(b)
		said.Write(b[:n])
		if strings.Contains(said.String(), want) {
			return said.String()
		}
		if err != nil {
			cancel()
			_ = cmd.Wait() // complaints is whole then
			t.Fatalf("%v: did not say %q, but:\n%s\n%s", cmd.Args, want, said.String(), complaints.String())
		}
	}
}

func TestBootFromStick(t *testing.T) {
	cmdline := "console=ttyS0,115200 panic=-1 words=\"with blanks\""
	quoted := strings.ReplaceAll(cmdline, `"`, `\"`)
	boot(t, image(t, kernel(t), cmdline), `bootinit: runs with "`+quoted+`\n"`, uefi(t)...)
}

// TestMicrocode boots an image with microcode in front of its initramfs, on a processor that is
// there to be given some: the kernel finds the update for it, and refuses it, as it is none of
// those that it knows by their hash. What it unpacks is the list alone, and the initramfs.
func TestMicrocode(t *testing.T) {
	const revision = 0x8001251 // of family 23, model 1, stepping 2, which nobody has published
	set := microcode.Set{
		Intel:   microcodetest.Intel(1, microcodetest.ID{CPUID: 0x806f8, Platforms: 0x87}),
		AMD:     append(microcodetest.AMD(0xa0011d5, 0xa011, 0xa00f11), microcodetest.AMD(revision, 0x8012, 0x800f12)...),
		Sources: []string{"test-microcode 1"},
	}
	early, err := set.Archive()
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := imageOf(t, kernel(t), z.EncodeAll(initramfs(t), early), "console=ttyS0,115200 panic=-1")
	said := bootOn(t, "EPYC,phys-bits=36,-hypervisor,ucode-rev=0x8001230", file, "bootinit: runs with ", uefi(t)...)
	for _, want := range []string{
		"microcode: No sha256 digest for patch ID: 0x8001251 found",
		"microcode: Current revision: 0x08001230",
		"bootinit: microcode [contents]; lstat /kernel: no such file or directory",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}

// TestBrokenKernel has the stub say what is wrong.
func TestBrokenKernel(t *testing.T) {
	b := kernel(t)
	pe := binary.LittleEndian.Uint32(b[0x3c:])
	binary.LittleEndian.PutUint32(b[pe+24+60:], 0) // SizeOfHeaders
	boot(t, image(t, b, "console=ttyS0"), "Ashlar cannot start: the firmware does not load the kernel (EFI status 0x800000000000000", uefi(t)...)
}

// TestLegacyBIOS has the stick say that it needs UEFI.
func TestLegacyBIOS(t *testing.T) {
	boot(t, image(t, kernel(t), "console=ttyS0"), "Ashlar needs UEFI", "-M", "q35,graphics=off")
}
