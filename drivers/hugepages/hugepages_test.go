package hugepages

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "hugepages-2048kB")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nr_hugepages", "16\n")
	write("free_hugepages", "9\n")
	write("resv_hugepages", "4\n")
	p, err := read(root, 2<<20)
	if err != nil || p != (Pool{16, 9, 4}) || p.Available() != 5 {
		t.Errorf("read = %+v, %v", p, err)
	}
	write("free_hugepages", "many\n")
	if p, err := read(root, 2<<20); err == nil || p != (Pool{}) {
		t.Errorf("read of what is no number = %+v, %v", p, err)
	}
	if p, err := read(root, 1<<30); !errors.Is(err, fs.ErrNotExist) || p != (Pool{}) {
		t.Errorf("read of a size that there is not = %+v, %v", p, err)
	}
}

func TestAvailable(t *testing.T) {
	for p, want := range map[Pool]int64{{}: 0, {16, 16, 0}: 16, {16, 3, 3}: 0, {16, 2, 3}: 0} {
		if got := p.Available(); got != want {
			t.Errorf("%+v: Available() = %d, want %d", p, got, want)
		}
	}
}
