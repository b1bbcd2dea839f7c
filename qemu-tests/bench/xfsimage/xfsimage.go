// Package xfsimage makes XFS file systems with files in them, without root: by
// the prototype file of mkfs.xfs(8), option -p.
package xfsimage

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A Tree is files, links and folders by their path without a leading slash.
// Folders on the way are made.
type Tree map[string]Node

// A Node is one of File with its permissions, Link, or neither: a folder.
type Node struct {
	File string // a path relative to the folder given to Make
	Mode uint32 // 0 to 0777, of File
	Link string // the target
}

// Make writes a file system of size bytes (at least 300 MiB; the image has holes)
// with tree's nodes to image. All belong to root. Files are read from below dir.
func Make(image string, size int64, dir string, tree Tree) error {
	mkfs, err := Find("mkfs.xfs")
	if err != nil {
		return err
	}
	text, err := prototype(tree)
	if err != nil {
		return err
	}
	if image, err = filepath.Abs(image); err != nil {
		return err
	}
	proto := image + ".proto"
	defer os.Remove(proto)
	if err := os.WriteFile(proto, []byte(text), 0o644); err != nil {
		return err
	}
	os.Remove(image)
	c := exec.Command(mkfs, "-q", "-p", proto, "-d", fmt.Sprintf("name=%s,file=1,size=%d", image, size))
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", image, err, out)
	}
	return nil
}

// Find looks for a program also where users do not look.
func Find(name string) (string, error) {
	for _, p := range []string{name, "/sbin/" + name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("missing %s: make setup installs it", name)
}

// A folder is the names in it: nil for a file or a link.
type folder map[string]folder

// prototype writes down the tree. Its words are separated by white space, which
// no name may have.
func prototype(tree Tree) (string, error) {
	root := folder{}
	for name, n := range tree {
		if strings.ContainsAny(name+n.File+n.Link, " \t\n") || !filepath.IsLocal(name) || path.Clean(name) != name {
			return "", fmt.Errorf("put %q into a file system: not a clean name without white space", name)
		}
		at := root
		words := strings.Split(name, "/")
		for i, w := range words {
			if i == len(words)-1 && (n.File != "" || n.Link != "") {
				at[w] = nil
				break
			}
			if at[w] == nil {
				at[w] = folder{}
			}
			at = at[w]
		}
	}
	var b strings.Builder
	b.WriteString("/\n0 0\nd--755 0 0\n") // boot file and sizes: not used
	list(&b, "", root, tree)
	return b.String(), nil
}

// list writes what is in folder f, and its end.
func list(b *strings.Builder, prefix string, f folder, tree Tree) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		n := tree[prefix+name]
		switch {
		case n.File != "":
			fmt.Fprintf(b, "%s ---%03o 0 0 %s\n", name, n.Mode, n.File)
		case n.Link != "":
			fmt.Fprintf(b, "%s l--777 0 0 %s\n", name, n.Link)
		default:
			fmt.Fprintf(b, "%s d--755 0 0\n", name)
			list(b, prefix+name+"/", f[name], tree)
		}
	}
	b.WriteString("$\n")
}
