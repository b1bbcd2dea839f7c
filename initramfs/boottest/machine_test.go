package boottest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/configure"
	"github.com/ashlar-hv/ashlar/image-build/disk"
	"github.com/ashlar-hv/ashlar/qemu-tests/onecpu"
	"github.com/ashlar-hv/ashlar/qemu-tests/qmp"
)

const top = "../.."

// patience is for one boot on a busy machine without hardware virtualization.
const patience = 90 * time.Second

// initramfs builds the real one, once.
var initramfs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "boottest-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "initramfs.cpio")
	build := exec.Command("go", "run", "./initramfs/mkinitramfs", "-o", file, "-version", "boottest")
	build.Dir = top
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := initramfs(); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// A machine is a running QEMU.
type machine struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	console string
	ended   chan error
}

// boot starts a machine with these QEMU arguments.
func boot(t *testing.T, cmdline string, args ...string) *machine {
	t.Helper()
	kernel := filepath.Join(top, "out/bzImage")
	if _, err := os.Stat(kernel); err != nil {
		t.Fatalf("%v: `make kernel` makes it", err)
	}
	initrd, err := initramfs()
	if err != nil {
		t.Fatalf("build the initramfs: %v", err)
	}
	m := &machine{t: t, dir: t.TempDir(), ended: make(chan error, 1)}
	m.console = filepath.Join(m.dir, "console")
	m.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-M", "q35", "-accel", "tcg,thread=single", "-cpu", "EPYC,+svm,+npt,phys-bits=36", "-smp", "2", "-m", "1G",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + m.console,
		"-qmp", "unix:" + m.dir + "/qmp,server=on,wait=off",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=1 " + cmdline,
	}, args...)...)
	if err := onecpu.Start(m.cmd.Start); err != nil {
		t.Fatalf("%v: install qemu-system-x86", err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	t.Cleanup(func() { m.cmd.Process.Kill() })
	return m
}

// text is what the console has said.
func (m *machine) text() string {
	b, _ := os.ReadFile(m.console)
	return strings.ReplaceAll(string(b), "\r", "")
}

// wait waits until the console says s.
func (m *machine) wait(s string) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		switch text := m.text(); {
		case strings.Contains(text, s):
			return
		case time.Now().After(deadline):
			m.t.Fatalf("the console does not say %q:\n%s", s, text)
		}
	}
}

// says checks what the console has said, or must not have.
func (m *machine) says(want bool, list ...string) {
	m.t.Helper()
	text := m.text()
	for _, s := range list {
		if strings.Contains(text, s) != want {
			m.t.Errorf("the console says %q: %v, want %v", s, !want, want)
		}
	}
	if m.t.Failed() {
		m.t.Logf("console:\n%s", text[max(0, strings.Index(text, "init: Ashlar")):])
	}
}

// powerButton presses it.
func (m *machine) powerButton() {
	m.t.Helper()
	q, err := qmp.Dial(filepath.Join(m.dir, "qmp"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer q.Close()
	if _, err := q.Do("system_powerdown", nil); err != nil {
		m.t.Fatal(err)
	}
}

// end waits until the machine is off.
func (m *machine) end() {
	m.t.Helper()
	select {
	case err := <-m.ended:
		if err != nil {
			m.t.Fatalf("QEMU: %v", err)
		}
	case <-time.After(patience):
		m.t.Fatalf("the machine is still on:\n%s", m.text())
	}
}

// stick makes an image with a configuration document, nil for none.
func stick(t *testing.T, doc []byte) []string {
	t.Helper()
	image, err := disk.Build([]byte("MZ nothing to start here"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stick.img")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if doc != nil {
		if err := configure.Configure(file, doc); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,file=" + file, "-device", "usb-storage,drive=stick"}
}

// blankDisk makes a disk of 1 GiB.
func blankDisk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	return file
}

func nvme(file, serial string) []string {
	return []string{"-drive", "if=none,id=" + serial + ",format=raw,file=" + file, "-device", "nvme,drive=" + serial + ",serial=" + serial}
}

func userNetwork() []string {
	return []string{"-netdev", "user,id=net", "-device", "e1000e,netdev=net"}
}

// document is the example of package config with our own host name, network
// and disks.
func document(t *testing.T, network, disks string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, "image-build/config/testdata/example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, api, ok := bytes.Cut(b, []byte("\napi:\n"))
	api, _, ok2 := bytes.Cut(api, []byte("\n# The disk"))
	if !ok || !ok2 {
		t.Fatal("the example of a configuration has changed: it has no api section before the disks")
	}
	doc := []byte("version: 1\nhostname: boottest\nnetwork: " + network + "\napi:\n" + string(api) + "\ndisks: " + disks + "\n")
	if _, err := config.Parse(doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func join(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// damagedStick is a stick with good on it, in which good was then replaced by
// bad, of another length: what an editor does, and ashlarctl would refuse.
func damagedStick(t *testing.T, good, bad []byte) []string {
	t.Helper()
	args := stick(t, good)
	_, file, _ := strings.Cut(args[3], "file=")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(b, good) != 1 {
		t.Fatal("the document does not lie on the stick in one piece")
	}
	padded := append(bytes.Clone(bad), bytes.Repeat([]byte("\n"), len(good)-len(bad))...)
	if err := os.WriteFile(file, bytes.Replace(b, good, padded, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	return args
}
