// Mkinitramfs builds the host's initramfs: init, the daemons, and u-root's
// commands for rescue, as a cpio archive of the newc format
// (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	mkinitramfs -o out/initramfs.cpio.zst [-version V] [-cache DIR] [-add FILE:PATH]...
//
// A name that ends in .zst is compressed with zstd, at its best level; others
// are plain. The same sources give the same bytes. The rescue commands come
// from other modules and change rarely: they are kept in the cache, by a hash of
// all that they depend on.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// programs are ours, each with its place in the initramfs.
var programs = []program{
	{pkg: "./initramfs/init", path: "init"},
	{pkg: "./mgmt/core/ashlar-core", path: "bin/ashlar-core"},
	{pkg: "./mgmt/core/ashlar-netd", path: "bin/ashlar-netd"},
	{pkg: "./mgmt/control/ashlar-control", path: "bin/ashlar-control"},
	{pkg: "./vmm/ashlar-vmm", path: "bin/ashlar-vmm", max: 4 << 20},
}

type options struct {
	output, version, cache string
	add                    files
	partial                bool
}

// files are FILE:PATH pairs.
type files [][2]string

func (f *files) String() string { return "" }

// Set takes one pair.
func (f *files) Set(s string) error {
	file, path, ok := strings.Cut(s, ":")
	if !ok || file == "" || path == "" || strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is not FILE:PATH with a path relative to the root", s)
	}
	*f = append(*f, [2]string{file, path})
	return nil
}

func main() {
	var o options
	flag.StringVar(&o.output, "o", "out/initramfs.cpio.zst", "the archive to write")
	flag.StringVar(&o.version, "version", "devel", "the version that the programs report")
	flag.StringVar(&o.cache, "cache", "", "folder for what need not be built again (default: initramfs in $ASHLAR_CACHE or the user's cache)")
	flag.Var(&o.add, "add", "also add FILE as PATH, for tests; can be repeated")
	flag.BoolVar(&o.partial, "partial", false, "leave out programs whose sources are not there, for tests of init")
	flag.Parse()
	if o.cache == "" {
		o.cache = defaultCache()
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "mkinitramfs:", err)
		os.Exit(1)
	}
}

// defaultCache is where `make` keeps it.
func defaultCache() string {
	dir := os.Getenv("ASHLAR_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			user = os.TempDir()
		}
		dir = filepath.Join(user, "ashlar")
	}
	return filepath.Join(dir, "initramfs")
}

func run(o options) error {
	begin := time.Now()
	// u-root's builder changes folders.
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	work, err := os.MkdirTemp("", "mkinitramfs-")
	if err != nil {
		return fmt.Errorf("make a folder to work in: %w", err)
	}
	defer os.RemoveAll(work)
	list := programs
	if o.partial {
		list = present(programs)
	}
	if err := build(work, o.version, list); err != nil {
		return err
	}
	step("programs", begin)
	began := time.Now()
	rescueFile, fresh, err := rescueArchive(cache)
	if err != nil {
		return err
	}
	if fresh {
		step("rescue commands", began)
	} else {
		step("rescue commands, from the cache", began)
	}
	began = time.Now()
	parts, err := write(o, work, list, rescueFile)
	if err != nil {
		return err
	}
	step("archive", began)
	return summarise(o.output, parts, begin)
}

// present are the programs whose sources are there.
func present(all []program) []program {
	var list []program
	for _, p := range all {
		if sources, _ := filepath.Glob(filepath.Join(p.pkg, "*.go")); len(sources) > 0 {
			list = append(list, p)
		}
	}
	return list
}

func step(what string, began time.Time) {
	fmt.Printf("%-36s %6.1f s\n", what, time.Since(began).Seconds())
}

func summarise(output string, parts []part, begin time.Time) error {
	for _, p := range parts {
		fmt.Printf("  %-24s %8.1f KiB\n", p.name, float64(p.size)/1024)
	}
	info, err := os.Stat(output)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %.1f KiB, %.1f s\n", output, float64(info.Size())/1024, time.Since(begin).Seconds())
	return nil
}
