// Setup makes a machine ready to build and test Ashlar.
//
// It finds out what is missing, says what it is going to install, and installs
// it with apt-get, through sudo where it does not run as root. Without apt-get
// it lists what is missing and ends with status 1. A machine that has
// everything is left alone.
//
// On Debian 12 QEMU is too old for an SR-IOV network card; there the backports
// suite is added from the mirror that the machine uses already. Where the
// distribution has no package of the kernel's source, mmdebstrap fetches
// Debian's into the cache folder.
//
// Usage: go run ./qemu-tests/setup [--dry-run]
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	dry := flag.Bool("dry-run", false, "say what is missing, install nothing")
	flag.Parse()
	if err := run(*dry); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

// A need is something the build or the tests use.
type need struct {
	pkg string // Debian's name
	why string
	has func() bool // finds it on a machine without dpkg
}

// cmd and file make the has of a need.
func cmd(name string) func() bool {
	return func() bool { _, err := exec.LookPath(name); return err == nil }
}

func file(pattern string) func() bool {
	return func() bool { m, _ := filepath.Glob(pattern); return len(m) > 0 }
}

var needs = []need{
	{"gcc", "kernel, EFI stub, race detector", cmd("gcc")},
	{"libc6-dev", "kernel's tools, race detector", file("/usr/include/stdio.h")},
	{"binutils", "kernel, EFI stub", cmd("objcopy")},
	{"flex", "kernel", cmd("flex")},
	{"bison", "kernel", cmd("bison")},
	{"bc", "kernel", cmd("bc")},
	{"libelf-dev", "kernel", file("/usr/include/libelf.h")},
	{"libssl-dev", "kernel", file("/usr/include/openssl/ssl.h")},
	{"xz-utils", "kernel", cmd("xz")},
	{"zstd", "kernel", cmd("zstd")},
	{"ovmf", "UEFI firmware of the lab", file("/usr/share/OVMF/OVMF_CODE_4M.fd")},
	{"mmdebstrap", "Debian guest, microcode", cmd("mmdebstrap")},
	{"debian-archive-keyring", "Debian guest, microcode", file("/usr/share/keyrings/debian-archive-keyring.*")},
	{"uidmap", "Debian guest, built without root", cmd("newuidmap")},
	{"fakeroot", "Debian guest, built without root", cmd("fakeroot")},
	{"e2fsprogs", "Debian guest", func() bool { return cmd("mke2fs")() || file("/sbin/mke2fs")() }},
	{"xfsprogs", "tests of the data disk", func() bool { return cmd("xfs_repair")() || file("/sbin/xfs_repair")() }},
	{"dosfstools", "tests of the image", func() bool { return cmd("fsck.vfat")() || file("/sbin/fsck.vfat")() }},
	{"mtools", "tests of the image", cmd("mcopy")},
	{"acpica-tools", "tests of the ACPI tables", cmd("iasl")},
}

// minQEMU is the first QEMU with an SR-IOV capable igb.
const minQEMU = 8

func run(dry bool) error {
	start := time.Now()
	_, aptErr := exec.LookPath("apt-get")
	hasApt := aptErr == nil
	var missing []string
	for _, n := range needs {
		if hasApt && installed(n.pkg) || !hasApt && n.has() {
			continue
		}
		missing = append(missing, n.pkg)
		fmt.Printf("setup: missing %s (%s)\n", n.pkg, n.why)
	}
	qemuOld := qemuVersion() < minQEMU
	if qemuOld {
		fmt.Printf("setup: missing qemu-system-x86_64 %d or newer (the lab; older ones have no SR-IOV network card)\n", minQEMU)
	}
	source := kernelSource()
	if source == "" {
		fmt.Println("setup: missing the source of Linux 6.12 (Debian's linux-source-6.12, or a tarball named by KERNEL_SRC)")
	}
	if len(missing) == 0 && !qemuOld && source != "" {
		fmt.Printf("setup: everything is here (%.1f s)\n", time.Since(start).Seconds())
		return nil
	}
	if !hasApt {
		return errors.New("this machine has no apt-get: install the above by its own means and try again")
	}
	if dry {
		return errors.New("dry run: nothing was installed")
	}
	if err := install(missing, qemuOld, source == ""); err != nil {
		return err
	}
	if v := qemuVersion(); v < minQEMU {
		return fmt.Errorf("qemu-system-x86_64 is version %d after the installation, want at least %d: this distribution is too old", v, minQEMU)
	}
	fmt.Printf("setup: done in %.0f s\n", time.Since(start).Seconds())
	return nil
}

// install installs packages, QEMU and the kernel's source.
func install(packages []string, qemu, source bool) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	backports := qemu && codename() == "bookworm"
	if backports {
		if err := addBackports(); err != nil {
			return err
		}
	}
	if err := root(nil, "apt-get", "update", "-q"); err != nil {
		return err
	}
	fromApt := source && candidate("linux-source-6.12")
	if fromApt {
		packages = append(packages, "linux-source-6.12")
	}
	if qemu && !backports {
		packages = append(packages, "qemu-system-x86")
	}
	if len(packages) > 0 {
		fmt.Println("setup: installing", strings.Join(packages, " "))
		args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)
		if err := root(env, "apt-get", args...); err != nil {
			return err
		}
	}
	if backports {
		fmt.Println("setup: installing qemu-system-x86 from bookworm-backports")
		if err := root(env, "apt-get", "install", "-q", "-y", "--no-install-recommends", "-t", "bookworm-backports", "qemu-system-x86"); err != nil {
			return err
		}
	}
	if source && !fromApt {
		return fetchSource()
	}
	return nil
}

// installed reports whether dpkg has the package.
func installed(pkg string) bool {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", pkg).Output()
	return err == nil && strings.HasPrefix(string(out), "installed")
}

// candidate reports whether apt could install the package.
func candidate(pkg string) bool {
	out, err := exec.Command("apt-cache", "policy", pkg).Output()
	return err == nil && strings.Contains(string(out), "Candidate: ") && !strings.Contains(string(out), "Candidate: (none)")
}

var versionRE = regexp.MustCompile(`version (\d+)\.`)

// qemuVersion is the major version of QEMU, 0 where there is none.
func qemuVersion() int {
	out, err := exec.Command("qemu-system-x86_64", "--version").Output()
	if err != nil {
		return 0
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return 0
	}
	v, _ := strconv.Atoi(string(m[1]))
	return v
}

// codename is VERSION_CODENAME of os-release(5).
func codename() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// addBackports adds bookworm-backports from the mirror that has bookworm.
func addBackports() error {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return fmt.Errorf("ask apt for its sources: %w", err)
	}
	mirror := ""
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "main" {
			continue
		}
		switch f[1] {
		case "bookworm-backports":
			return nil
		case "bookworm":
			mirror = f[0]
		}
	}
	if mirror == "" {
		return errors.New("apt has no source with bookworm main: add bookworm-backports yourself, then try again")
	}
	const path = "/etc/apt/sources.list.d/ashlar-backports.sources"
	fmt.Printf("setup: adding %s (bookworm-backports from %s), for QEMU\n", path, mirror)
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n", mirror)
	tmp, err := os.CreateTemp("", "ashlar-backports")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.WriteString(text); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return root(nil, "install", "-m", "0644", tmp.Name(), path)
}

// root runs a command as root.
func root(env []string, name string, args ...string) error {
	argv := append([]string{name}, args...)
	if len(env) > 0 {
		argv = append(append([]string{"env"}, env...), argv...)
	}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("sudo"); err != nil {
			return fmt.Errorf("not root and no sudo: run as root: %s", strings.Join(argv, " "))
		}
		argv = append([]string{"sudo"}, argv...)
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

const tarball = "usr/src/linux-source-6.12.tar.xz"

// kernelSource is the tarball of the kernel's source, "" where there is none.
func kernelSource() string {
	for _, p := range []string{os.Getenv("KERNEL_SRC"), "/" + tarball, cached()} {
		if p == "" {
			continue
		}
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// cached is where fetchSource puts the tarball.
func cached() string {
	dir := os.Getenv("ASHLAR_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(base, "ashlar")
	}
	return filepath.Join(dir, "source", filepath.Base(tarball))
}

// fetchSource has mmdebstrap extract Debian's package of the source.
func fetchSource() error {
	to := cached()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(to), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Println("setup: fetching Debian's linux-source-6.12 with mmdebstrap")
	tar := filepath.Join(tmp, "source.tar")
	c := exec.Command("mmdebstrap", "--variant=extract", "--include=linux-source-6.12", "trixie", tar)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("fetch linux-source-6.12: %w: name a tarball with KERNEL_SRC instead", err)
	}
	x := exec.Command("tar", "-xf", tar, "-C", tmp, "./"+tarball)
	x.Stderr = os.Stderr
	if err := x.Run(); err != nil {
		return fmt.Errorf("unpack linux-source-6.12: %w", err)
	}
	return os.Rename(filepath.Join(tmp, tarball), to)
}
