// Package recipe builds a Linux kernel from Debian's source package and the fragments in kernel/config, so that the
// same input gives the same bytes. It follows Documentation/kbuild/reproducible-builds.rst of the kernel.
//
// All that decides about the bytes is in this package, and its source is part of [Hash]: where sources are searched,
// what make is told, what is taken from the tree. What only decides how a build looks is in kernel/build.
package recipe

import (
	"fmt"
	"io/fs"
	"path"

	"github.com/ashlar-hv/ashlar/kernel/config"
	"github.com/ashlar-hv/ashlar/kernel/kconfig"
)

// Profile is one of the kernels we build.
type Profile struct {
	Name  string
	Limit int64 // of bzImage, in bytes
	ELF   bool  // also gives vmlinux, stripped, for the PVH boot protocol
}

// The kernels: of the host, and of guests in tests and the demo.
var (
	Host  = Profile{Name: "host", Limit: 10 << 20}
	Guest = Profile{Name: "guest", Limit: 6 << 20, ELF: true}
)

// ProfileByName is the profile called name.
func ProfileByName(name string) (Profile, error) {
	for _, p := range []Profile{Host, Guest} {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("no kernel %q: there are host and guest", name)
}

// Options joins the fragments of the profile in fragments, laid out as [config.Fragments].
func (p Profile) Options(fragments fs.FS) ([]kconfig.Option, error) {
	var parsed [][]kconfig.Option
	for _, dir := range []string{"common", p.Name} {
		files, err := fs.Glob(fragments, path.Join(dir, "*.config"))
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			options, err := parseFile(fragments, name)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, options)
		}
	}
	return kconfig.Merge(parsed...)
}

func parseFile(fragments fs.FS, name string) ([]kconfig.Option, error) {
	f, err := fragments.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return kconfig.Parse(path.Join("kernel/config", name), f)
}

// Asked is what the fragments of this tree ask for in the profile.
func (p Profile) Asked() ([]kconfig.Option, error) { return p.Options(config.Fragments) }
