// Package boottest boots the kernels in out/ in QEMU and looks at what they can do: a check of the result, where
// kernel/kconfig only checks the configuration.
package boottest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/onecpu"
)

// limit is far more than a boot takes under software emulation on a busy machine.
const limit = 3 * time.Minute

// initramfs is the probe as a cpio archive in the newc format (Documentation/driver-api/early-userspace).
func initramfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-o", init, "./probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	content, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	record(&b, 1, "dev", 0o040755, nil)
	record(&b, 2, "init", 0o100755, content)
	record(&b, 0, "TRAILER!!!", 0, nil)
	path := filepath.Join(dir, "initramfs.cpio")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// record writes one file of the archive: 13 numbers in hex, the name, the content, each padded to four bytes.
func record(b *bytes.Buffer, inode int, name string, mode int, content []byte) {
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	b.WriteString(name + "\x00")
	pad()
	b.Write(content)
	pad()
}

// boot starts a kernel with the probe and returns what it has, and all it printed.
func boot(t *testing.T, kernel, cmdline string, devices ...string) (map[string]bool, string) {
	t.Helper()
	kernel = filepath.Join("../../out", kernel)
	if _, err := os.Stat(kernel); err != nil {
		t.Fatalf("%v: build it with go run ./kernel/build", err)
	}
	args := []string{
		"-accel", "tcg,thread=single", "-cpu", "EPYC,+svm,+npt,phys-bits=36", "-smp", "2", "-m", "1G",
		"-kernel", kernel, "-initrd", initramfs(t), "-append", "console=ttyS0 panic=-1 " + cmdline,
		"-nographic", "-no-reboot", "-net", "none",
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, devices...)...)
	var said bytes.Buffer
	qemu.Stdout, qemu.Stderr = &said, &said
	err := onecpu.Start(qemu.Start)
	if err == nil {
		err = qemu.Wait()
	}
	out := said.Bytes()
	if err != nil || !bytes.Contains(out, []byte("probe: done")) {
		t.Fatalf("%v: %v\n%s", qemu.Args, err, tail(out))
	}
	had := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "have "); ok {
			had[what] = true
		}
	}
	return had, string(out)
}

func tail(out []byte) []byte { return out[max(0, len(out)-4000):] }

// check looks for kind:what of each word in what.
func check(t *testing.T, had map[string]bool, want bool, kind, what string) {
	t.Helper()
	for w := range strings.FieldsSeq(what) {
		if had[kind+":"+w] != want {
			t.Errorf("kernel has %s:%s = %v, want %v", kind, w, !want, want)
		}
	}
}
