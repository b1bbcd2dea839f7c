package cache

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Extract takes files out of a tar archive into dir: for each pattern (of
// path.Match) that is a key of files, the one file that it fits, under the name
// that is its value.
func Extract(archive, dir string, files map[string]string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	found := make(map[string]string, len(files))
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", archive, err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		for pattern, to := range files {
			ok, err := path.Match(pattern, name)
			if err != nil {
				return fmt.Errorf("%s: %w", pattern, err)
			}
			if !ok || h.Typeflag != tar.TypeReg {
				continue
			}
			if found[pattern] != "" {
				return fmt.Errorf("%s and %s fit %s, want one file", found[pattern], name, pattern)
			}
			found[pattern] = name
			if err := write(filepath.Join(dir, to), r); err != nil {
				return fmt.Errorf("take out %s: %w", name, err)
			}
		}
	}
	for pattern := range files {
		if found[pattern] == "" {
			return fmt.Errorf("%s has no %s", archive, pattern)
		}
	}
	return nil
}

func write(to string, r io.Reader) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
