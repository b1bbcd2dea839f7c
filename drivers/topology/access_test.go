package topology

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tableOf is an ACPI table: a header with its revision, reserved bytes and structures.
func tableOf(revision byte, reserved int, structures ...[]byte) []byte {
	b := make([]byte, headerSize+reserved)
	b[8] = revision
	for _, s := range structures {
		b = append(b, s...)
	}
	return b
}

// processorOf and x2APIC are entries of SRAT for processors of a proximity domain, memoryOf one for memory.
func processorOf(domain uint32) []byte {
	b := make([]byte, 16)
	b[0], b[1], b[2], b[9] = 0, 16, byte(domain), byte(domain>>8)
	b[4] = 1
	return b
}

func x2APIC(domain, flags uint32) []byte {
	b := make([]byte, 24)
	b[0], b[1] = 2, 24
	le.PutUint32(b[4:], domain)
	le.PutUint32(b[12:], flags)
	return b
}

func memoryOf(domain uint32) []byte {
	b := make([]byte, 40)
	b[0], b[1], b[28] = 1, 40, 1
	le.PutUint32(b[2:], domain)
	return b
}

// localityOf is a structure of HMAT: entries from each of the domains from to each of to.
func localityOf(flags, kind byte, unit uint64, from, to []uint32, entries ...uint16) []byte {
	b := make([]byte, 32)
	b[0], b[8], b[9] = 1, flags, kind
	le.PutUint32(b[12:], uint32(len(from)))
	le.PutUint32(b[16:], uint32(len(to)))
	le.PutUint64(b[24:], unit)
	for _, d := range append(from[:len(from):len(from)], to...) {
		b = le.AppendUint32(b, d)
	}
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e)
	}
	le.PutUint32(b[4:], uint32(len(b)))
	return b
}

func tables(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "firmware/acpi/tables")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Domains are numbered as they are met: 300 is node 0, 5 is node 1, and 7, of memory alone, node 2.
func TestReadAccess(t *testing.T) {
	srat := tableOf(3, 12, memoryOf(7), x2APIC(9, 0), processorOf(300), x2APIC(5, 1), memoryOf(5), memoryOf(300))
	from, to := []uint32{300, 5}, []uint32{300, 5, 7, 99}
	hmat := tableOf(2, 4, make([]byte, 0),
		localityOf(0, 0, 100, from, to, 1, 2, 3, 4, 5, 6, 0, 8),
		localityOf(0, 2, 10, from[:1], to[:1], 50),
		localityOf(0, 3, 1000, from[1:], to[2:3], 7),
		localityOf(0, 4, 1, from[:1], to[:2], 20, 0xffff),
		localityOf(1, 0, 1, from[:1], to[:1], 9), // of a cache
	)
	got, err := readAccess(tables(t, map[string][]byte{"SRAT": srat, "HMAT": hmat}))
	want := map[Pair]Access{
		{0, 0}: {ReadLatency: 100, WriteLatency: 500, ReadBandwidth: 20},
		{0, 1}: {ReadLatency: 200, WriteLatency: 200},
		{0, 2}: {ReadLatency: 300, WriteLatency: 300},
		{1, 0}: {ReadLatency: 500, WriteLatency: 500},
		{1, 1}: {ReadLatency: 600, WriteLatency: 600},
		{1, 2}: {ReadBandwidth: 7000, WriteBandwidth: 7000},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("readAccess: %v (-want +got):\n%s", err, d)
	}
	hmat[8] = 1
	if got, err := readAccess(tables(t, map[string][]byte{"SRAT": srat, "HMAT": hmat})); err != nil || len(got) != 0 {
		t.Errorf("of revision 1: %v, %v, want nothing", got, err)
	}
	if got, err := readAccess(tables(t, nil)); err != nil || got != nil {
		t.Errorf("without tables: %v, %v", got, err)
	}
}

func TestReadAccessRefuses(t *testing.T) {
	srat := tableOf(3, 12, processorOf(0))
	good := localityOf(0, 0, 1, []uint32{0}, []uint32{0}, 1)
	long := localityOf(0, 0, 1, []uint32{0}, []uint32{0}, 1, 1)
	unit := localityOf(0, 0, 1<<41, []uint32{0}, []uint32{0}, 1)
	endless := append([]byte(nil), good...)
	le.PutUint32(endless[4:], 0)
	for name, files := range map[string]map[string][]byte{
		"short HMAT":      {"SRAT": srat, "HMAT": tableOf(2, 2)},
		"short SRAT":      {"SRAT": make([]byte, 40), "HMAT": tableOf(2, 4)},
		"cut":             {"SRAT": srat, "HMAT": tableOf(2, 4, good[:20])},
		"too long":        {"SRAT": srat, "HMAT": tableOf(2, 4, long)},
		"without end":     {"SRAT": srat, "HMAT": tableOf(2, 4, endless)},
		"unit":            {"SRAT": srat, "HMAT": tableOf(2, 4, unit)},
		"processor's cut": {"SRAT": tableOf(3, 12, []byte{0, 4, 0, 0}), "HMAT": tableOf(2, 4)},
	} {
		if got, err := readAccess(tables(t, files)); !errors.Is(err, ErrTable) || got != nil {
			t.Errorf("%s: %v, %v, want ErrTable", name, got, err)
		}
	}
}

func FuzzAccess(f *testing.F) {
	f.Add(tableOf(3, 12, processorOf(0), x2APIC(1, 1), memoryOf(2)), tableOf(2, 4, localityOf(0, 3, 8, []uint32{0, 1}, []uint32{2}, 1, 2)))
	f.Fuzz(func(t *testing.T, srat, hmat []byte) {
		nodes, err := nodesOf(srat)
		if err != nil && nodes != nil {
			t.Fatalf("nodesOf = %v with %v", nodes, err)
		}
		if got, err := parseHMAT(hmat, nodes); err != nil && got != nil {
			t.Fatalf("parseHMAT = %v with %v", got, err)
		}
	})
}
