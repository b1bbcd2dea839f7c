// Mkmicrocode makes the archive of processors' microcode that an image has in front of its
// initramfs, from Debian's packages intel-microcode and amd64-microcode.
//
// Synopsis:
//
//	mkmicrocode [-o out/microcode.cpio]
//
// Description:
//
//	mmdebstrap(1) downloads and unpacks the packages, and has apt check Debian's signatures;
//	nothing of them is run, and it needs no root. They are of the components contrib and
//	non-free-firmware, which apt's own sources need not have. What is taken of them is kept
//	in the cache: the same bytes make the same archive, without a network. Debian's updates are
//	taken once that is removed: the command says where it is.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-hv/ashlar/image-build/microcode"
)

func main() {
	out := flag.String("o", "out/microcode.cpio", "the archive to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "mkmicrocode:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := fetched()
	if err != nil {
		return fmt.Errorf("%w\n`make MICROCODE=0` makes an image without microcode", err)
	}
	s, err := set(dir)
	if err != nil {
		return fmt.Errorf("%w\nremove %s to have it fetched again", err, dir)
	}
	b, err := s.Archive()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(out+".new", b, 0o644); err != nil {
		return err
	}
	fmt.Printf("microcode: %s, %.1f MiB; from %s, remove that for newer ones\n", strings.Join(s.Sources, ", "), float64(len(b))/(1<<20), dir)
	return os.Rename(out+".new", out)
}

// set chooses from what is in the cache.
func set(dir string) (microcode.Set, error) {
	var s microcode.Set
	intel, err := together(filepath.Join(dir, intelFiles))
	if err != nil {
		return s, err
	}
	all, err := microcode.ParseIntel(intel)
	if err != nil {
		return s, err
	}
	for _, u := range microcode.Servers(all) {
		s.Intel = append(s.Intel, u.Data...)
	}
	if s.AMD, err = together(filepath.Join(dir, amdFiles)); err != nil {
		return s, err
	}
	s.Licences = make(map[string][]byte)
	for _, p := range packages {
		if s.Licences["licence-"+p], err = os.ReadFile(filepath.Join(dir, p, "copyright")); err != nil {
			return s, err
		}
		version, err := os.ReadFile(filepath.Join(dir, p, "version"))
		if err != nil {
			return s, err
		}
		s.Sources = append(s.Sources, p+" "+string(version))
	}
	return s, nil
}

// together are all files that fit the pattern, in the order of their names.
func together(pattern string) ([]byte, error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no %s", pattern)
	}
	var all []byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}
