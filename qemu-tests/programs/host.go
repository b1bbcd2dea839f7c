package programs

import (
	_ "embed"
	"slices"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/xfsimage"
	"github.com/ashlar-hv/ashlar/qemu-tests/debian"
)

//go:embed host.go
var hostRecipe []byte

// hostSize is the least that XFS takes.
const hostSize = 300 << 20

// HostImage returns the path of a disk with the same, for the host: an XFS file system, as its
// kernel has no ext4.
func HostImage(say func(string)) (string, error) {
	return debian.Cached("programs", "host-programs.img", slices.Concat(recipe, hostRecipe), func(dir, image string) error {
		root, tree, err := files.Unpack(dir, say)
		if err != nil {
			return err
		}
		return xfsimage.Make(image, hostSize, root, tree)
	})
}
