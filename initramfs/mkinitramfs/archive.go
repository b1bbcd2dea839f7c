package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"
)

// window is how far back the compressor looks: over all programs, which have
// much in common. The kernel takes up to 128 MiB.
const window = 32 << 20

// A part is a file in the archive, for the summary.
type part struct {
	name string
	size uint64
}

// skeleton is what must be there before init has mounted anything: the console
// that the kernel opens for it.
func skeleton() []cpio.Record {
	list := []cpio.Record{cpio.CharDev("dev/console", 0o600, 5, 1)}
	for _, dir := range []string{"bin", "bbin", "dev", "etc", "proc", "run", "sys", "tmp", "data"} {
		list = append(list, cpio.Directory(dir, 0o755))
	}
	return list
}

// write puts everything together.
func write(o options, work string, programs []program, rescueFile string) (parts []part, err error) {
	records := skeleton()
	for _, p := range programs {
		r, err := file(filepath.Join(work, path.Base(p.pkg)), p.path, 0o755)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	for _, a := range o.add {
		r, err := file(a[0], a[1], 0o755)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	rescue, err := commandsIn(rescueFile)
	if err != nil {
		return nil, err
	}
	records = arrange(append(records, rescue...))
	for _, r := range records {
		if r.Mode&cpio.S_IFMT == cpio.S_IFREG {
			parts = append(parts, part{r.Name, r.FileSize})
		}
	}
	return parts, save(o.output, records)
}

func file(source, name string, mode uint64) (cpio.Record, error) {
	b, err := os.ReadFile(source)
	if err != nil {
		return cpio.Record{}, fmt.Errorf("add %s: %w", name, err)
	}
	return cpio.StaticFile(name, string(b), mode), nil
}

// commandsIn takes u-root's commands from their archive: what is in bbin.
func commandsIn(file string) ([]cpio.Record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read rescue commands: %w", err)
	}
	defer f.Close()
	all, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		return nil, fmt.Errorf("read rescue commands: %w", err)
	}
	var list []cpio.Record
	for _, r := range all {
		if !strings.HasPrefix(r.Name, "bbin/") {
			continue
		}
		// The contents are read before the file is closed.
		b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		if err != nil {
			return nil, fmt.Errorf("read rescue commands: %s: %w", r.Name, err)
		}
		list = append(list, cpio.StaticRecord(b, r.Info))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("read rescue commands: there are none in %s: remove it", file)
	}
	return list, nil
}

// arrange sorts the records and adds the folders they lie in; a later record of
// a name replaces an earlier one.
func arrange(records []cpio.Record) []cpio.Record {
	byName := map[string]cpio.Record{}
	for _, r := range records {
		for dir := path.Dir(r.Name); dir != "."; dir = path.Dir(dir) {
			if _, ok := byName[dir]; !ok {
				byName[dir] = cpio.Directory(dir, 0o755)
			}
		}
		byName[r.Name] = r
	}
	list := make([]cpio.Record, 0, len(byName))
	for _, r := range byName {
		list = append(list, cpio.MakeReproducible(r))
	}
	// A folder sorts before what lies in it.
	slices.SortFunc(list, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// save writes the archive, whole or not at all.
func save(output string, records []cpio.Record) (err error) {
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	f, err := os.Create(output + ".new")
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	defer os.Remove(output + ".new")
	if strings.HasSuffix(output, ".zst") {
		err = compress(f, records)
	} else {
		err = plain(f, records)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return os.Rename(output+".new", output)
}

func plain(w io.Writer, records []cpio.Record) error {
	out := cpio.Newc.Writer(w)
	if err := cpio.WriteRecords(out, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(out)
}

func compress(w io.Writer, records []cpio.Record) error {
	z, err := zstd.NewWriter(w,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1)) // the same bytes on every machine
	if err != nil {
		return err
	}
	if err := plain(z, records); err != nil {
		return err
	}
	return z.Close()
}
