// Package roottest runs the Go tests that need root, on the host's own kernel
// in QEMU: network namespaces, bridges, nftables, control groups, and programs
// in their jails. Those tests are behind the build tag roottest, so that nobody
// needs to be root to run all others.
package roottest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// Tag is the build tag of tests that need root.
const Tag = "roottest"

// HardwareTag is the build tag of tests that need what Run.Hardware is.
const HardwareTag = "hardware"

// passed is what init says at the end when all is well, failed what it begins with else.
const passed, failed = "roottest: all passed", "roottest: FAILED"

// begun is what init says of each package's tests before they run; a number follows, and "-".
const begun = "==> /tests/"

// errVanished says that an emulated machine ended without a word: its init has not switched it off,
// its kernel has not panicked, and no test had failed. QEMU's emulation of nested
// virtualization does that now and then (lab.Config).
var errVanished = errors.New("the machine is gone")

// vanished reports whether this is all that a machine of which errVanished is true has said.
func vanished(text string) bool {
	for _, end := range []string{passed, failed, "--- FAIL", "Kernel panic", "panic: "} {
		if strings.Contains(text, end) {
			return false
		}
	}
	return !lab.Hardware()
}

// A Run is one start of QEMU.
type Run struct {
	Kernel   string
	Packages []string          // import paths, whose tests are run one after the other
	Programs map[string]string // place in the root → flags of go build, if any, and import path of a program
	Files    map[string]string // place in the root → file
	// Guests are initramfs archives with one program each, as /init.
	Guests map[string]string // place in the root → import path of a program
	// Filter and Skip are given to each test program as -test.run and -test.skip, where
	// they are not "".
	Filter, Skip string
	// ManyCPUs gives the machine eight CPUs on two NUMA nodes, threads of two cores each.
	ManyCPUs bool
	// Hardware gives the machine an IOMMU and devices for guests, and has files with the build
	// tag HardwareTag built, too.
	Hardware bool
	// Disk gives the machine a disk to do with as tests like (qemu-tests/scratch).
	Disk bool
	// Controller adds an NVMe controller with virtual functions to Hardware.
	Controller bool
	// BigBAR adds a device with a BAR of that size to Hardware.
	BigBAR bool
}

// Do builds and runs everything in dir. It returns what the machines printed: where one has vanished
// another one goes on with the tests that have not passed. After three at the same test it has failed.
func (r Run) Do(ctx context.Context, dir string) (string, error) {
	const most = 3
	text, tries := "", 1
	for left := []Run{r}; len(left) > 0; {
		now := left[0]
		said, err := now.once(ctx, dir)
		text += said
		if left = left[1:]; err == nil {
			continue
		}
		at := now.at(said)
		if at < 0 || !errors.Is(err, errVanished) {
			return text, err
		}
		over := done(said)
		if tries++; at > 0 || over != "" {
			tries = 1
		}
		if tries > most {
			return text, err
		}
		text += "\nThe machine is gone; another one goes on.\n"
		rest := now
		if at > 0 {
			rest.Skip = r.Skip
		}
		rest.Packages = now.Packages[at : at+1]
		rest.Skip = strings.Trim(rest.Skip+"|"+over, "|")
		if after := now.Packages[at+1:]; len(after) > 0 {
			others := r
			others.Packages = after
			left = slices.Insert(left, 0, others)
		}
		left = slices.Insert(left, 0, rest)
	}
	return text, nil
}

// at is the index of the package that a machine was at, negative where it was at none.
func (r Run) at(text string) int {
	i := strings.LastIndex(text, begun)
	if i < 0 {
		return -1
	}
	var n int
	if _, err := fmt.Sscanf(text[i+len(begun):], "%d-", &n); err != nil || n >= len(r.Packages) {
		return -1
	}
	return n
}

// passedTest is what a test program says of each test that has passed.
var passedTest = regexp.MustCompile(`(?m)^--- PASS: (\w+) `)

// done is a regular expression for the tests of the last package that have passed, "" for none.
func done(text string) string {
	var names []string
	for _, m := range passedTest.FindAllStringSubmatch(text[max(strings.LastIndex(text, begun), 0):], -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// once is one machine.
func (r Run) once(ctx context.Context, dir string) (string, error) {
	initrd, err := r.pack(ctx, dir)
	if err != nil {
		return "", err
	}
	var hardware []string
	if r.Hardware {
		if hardware, err = devices(dir); err != nil {
			return "", err
		}
	}
	if r.Controller {
		more, err := controller(dir)
		if err != nil {
			return "", err
		}
		hardware = append(hardware, more...)
	}
	if r.BigBAR {
		hardware = append(hardware, bigBAR()...)
	}
	if r.Disk {
		more, err := scratchDisk(dir)
		if err != nil {
			return "", err
		}
		hardware = append(hardware, more...)
	}
	if r.ManyCPUs {
		hardware = append(hardware, manyCPUs()...)
	}
	// A page of 1 GiB can be had for sure only at the start. On a busy machine the kernel takes an
	// emulated timer for one that does not work.
	text, err := boot(ctx, dir, r.Kernel, initrd, hardware, "console=ttyS0", "quiet", "hugepagesz=1G", "hugepages=1",
		"intel_iommu=on", "iommu=pt", "no_timer_check", "roottest.run="+r.Filter, "roottest.skip="+r.Skip)
	switch {
	case err == nil && vanished(text):
		err = errVanished
		log, _ := os.ReadFile(filepath.Join(dir, ends)) // no more than help
		text += "\n" + string(log)
	case err == nil && !strings.Contains(text, passed):
		err = errors.New("the tests have not passed")
	}
	if err != nil {
		err = fmt.Errorf("run tests in QEMU: %w", err)
	}
	return text, err
}

// pack builds the programs and puts them into an initramfs.
func (r Run) pack(ctx context.Context, dir string) (string, error) {
	const here = "github.com/ashlar-hv/ashlar/qemu-tests/roottest"
	var records []cpio.Record
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "data", "tests"} {
		records = append(records, cpio.Directory(d, 0o755))
	}
	records = append(records, cpio.CharDev("dev/console", 0o600, 5, 1))
	add := func(place, file string) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		records = append(records, cpio.StaticFile(place, string(b), 0o755))
		return nil
	}
	program := filepath.Join(dir, "init")
	if err := build(ctx, "build", "-o", program, here+"/init"); err != nil {
		return "", err
	}
	if err := add("init", program); err != nil {
		return "", err
	}
	tags := Tag
	if r.Hardware {
		tags += "," + HardwareTag
	}
	for i, p := range r.Packages {
		name := fmt.Sprintf("%02d-%s", i, filepath.Base(p))
		out := filepath.Join(dir, name)
		if err := build(ctx, "test", "-c", "-tags", tags, "-o", out, p); err != nil {
			return "", err
		}
		if err := add("tests/"+name, out); err != nil {
			return "", err
		}
	}
	for place, p := range r.Programs {
		out := filepath.Join(dir, "program-"+filepath.Base(place))
		if err := build(ctx, slices.Concat([]string{"build", "-o", out}, strings.Fields(p))...); err != nil {
			return "", err
		}
		if err := add(place, out); err != nil {
			return "", err
		}
	}
	for place, file := range r.Files {
		if err := add(place, file); err != nil {
			return "", err
		}
	}
	for place, p := range r.Guests {
		out := filepath.Join(dir, "guest-"+filepath.Base(place))
		if err := build(ctx, "build", "-o", out, p); err != nil {
			return "", err
		}
		b, err := os.ReadFile(out)
		if err != nil {
			return "", err
		}
		archive, err := write(out+".cpio", []cpio.Record{cpio.Directory("dev", 0o755),
			cpio.CharDev("dev/console", 0o600, 5, 1), cpio.StaticFile("init", string(b), 0o755)})
		if err != nil {
			return "", err
		}
		if err := add(place, archive); err != nil {
			return "", err
		}
	}
	return write(filepath.Join(dir, "initramfs.cpio"), records)
}

func build(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

func write(name string, records []cpio.Record) (string, error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	return name, f.Close()
}
