package gpt

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	diskfs "github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"
)

type memory []byte

func (m memory) ReadAt(b []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(b, off) }

func (m memory) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], b), nil
}

var testTable = Table{
	Disk: MustGUID("00112233-4455-8677-8899-AABBCCDDEEFF"),
	Partitions: []Partition{
		{Type: BasicData, ID: MustGUID("00112233-4455-8677-8899-AABBCCDDEE01"), First: 2048, Last: 4095, Name: "ASHLAR-CFG"},
		{Type: EFISystem, ID: MustGUID("00112233-4455-8677-8899-AABBCCDDEE02"), First: 4096, Last: 6143, Name: "größer ✓"},
	},
}

func written(t testing.TB) memory {
	t.Helper()
	m := make(memory, 4<<20)
	if err := testTable.Write(m, int64(len(m)), []byte("boot code")); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReadBack(t *testing.T) {
	m := written(t)
	got, err := Read(m, int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&testTable, got); diff != "" {
		t.Errorf("table changed (-want +got):\n%s", diff)
	}
	if s := got.Partitions[1].Type.String(); s != "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" {
		t.Errorf("type = %s", s)
	}
}

// TestOthersReadWhatWeWrite has another implementation read the table.
func TestOthersReadWhatWeWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, written(t), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theirs, err := diskfs.Read(file.New(f, true), BlockSize, BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Verify(file.New(f, true), 4<<20); err != nil {
		t.Errorf("the backup table: %v", err)
	}
	if !theirs.ProtectiveMBR || theirs.GUID != testTable.Disk.String() {
		t.Errorf("disk %s, protective MBR %v", theirs.GUID, theirs.ProtectiveMBR)
	}
	for i, p := range testTable.Partitions {
		q := theirs.Partitions[i]
		if q.Start != p.First || q.End != p.Last || string(q.Type) != p.Type.String() || q.GUID != p.ID.String() || q.Name != p.Name {
			t.Errorf("partition %d is read as %+v, want %+v", i+1, q, p)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	reseal := func(m memory) {
		h := testTable.header(m[2*BlockSize:FirstUsable*BlockSize], uint64(len(m)/BlockSize), 1, uint64(len(m)/BlockSize)-1, 2)
		copy(m[BlockSize:], h)
	}
	for _, tt := range []struct {
		name, want string
		size       int64
		edit       func(m memory)
	}{
		{"zeros", "no GUID partition table", 4 << 20, func(m memory) { clear(m) }},
		{"tiny", "no GUID partition table", 1000, func(memory) {}},
		{"cut off", "it is cut off", 2 << 20, func(memory) {}},
		{"header damaged", "header is damaged", 4 << 20, func(m memory) { m[BlockSize+hDiskGUID]++ }},
		{"entries damaged", "entries are damaged", 4 << 20, func(m memory) { m[2*BlockSize]++ }},
		{"overlap", "partitions 1 and 2 overlap", 4 << 20, func(m memory) { m[2*BlockSize+40+1] = 0x10; reseal(m) }},
	} {
		m := written(t)
		tt.edit(m)
		_, err := Read(m, tt.size)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Read = %v, want %q in it", tt.name, err, tt.want)
		}
		if errors.Is(err, ErrNoTable) != strings.Contains(tt.want, "no GUID") {
			t.Errorf("%s: errors.Is(%v, ErrNoTable) = %v", tt.name, err, errors.Is(err, ErrNoTable))
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	p := testTable.Partitions[0]
	for name, table := range map[string]Table{
		"over the front":   {Partitions: []Partition{{Type: p.Type, First: 33, Last: 100}}},
		"over the end":     {Partitions: []Partition{{Type: p.Type, First: 34, Last: 8192 - Reserved}}},
		"backwards":        {Partitions: []Partition{{Type: p.Type, First: 100, Last: 99}}},
		"overlapping":      {Partitions: []Partition{p, p}},
		"name of 37 units": {Partitions: []Partition{{Type: p.Type, First: 34, Last: 34, Name: strings.Repeat("x", 37)}}},
		"too many":         {Partitions: make([]Partition, 129)},
	} {
		if err := table.Write(make(memory, 4<<20), 4<<20, nil); err == nil {
			t.Errorf("%s: Write = nil, want an error", name)
		}
	}
	if err := testTable.Write(make(memory, 4<<20), 4<<20, make([]byte, 441)); err == nil {
		t.Error("boot code of 441 bytes: Write = nil, want an error")
	}
}

func FuzzRead(f *testing.F) {
	m := written(f)
	f.Add([]byte(m[BlockSize:2*BlockSize]), []byte(m[2*BlockSize:3*BlockSize]), false)
	f.Add([]byte(m[BlockSize:2*BlockSize]), []byte(m[2*BlockSize:3*BlockSize]), true)
	f.Fuzz(func(t *testing.T, header, entries []byte, sum bool) {
		m := make(memory, 1<<20)
		copy(m[BlockSize:2*BlockSize], header)
		copy(m[2*BlockSize:FirstUsable*BlockSize], entries)
		if sum {
			h := m[BlockSize : 2*BlockSize]
			put(h[hEntryCRC:], crc32.ChecksumIEEE(m[2*BlockSize:FirstUsable*BlockSize]))
			put(h[hSize:], headerSize)
			put(h[hCRC:], 0)
			put(h[hCRC:], crc32.ChecksumIEEE(h[:headerSize]))
		}
		table, err := Read(m, int64(len(m)))
		if err != nil {
			if table != nil {
				t.Fatal("a table beside an error")
			}
			return
		}
		for _, p := range table.Partitions {
			if p.Type != (GUID{}) && (p.Offset() < 0 || p.Size() <= 0 || p.Offset()+p.Size() > int64(len(m))) {
				t.Fatalf("partition outside the disk: %+v", p)
			}
		}
	})
}

func put(b []byte, v uint32) { b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24) }
