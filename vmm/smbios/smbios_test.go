package smbios

import (
	"bytes"
	"testing"
)

func TestTables(t *testing.T) {
	b, err := Tables(System{UUID: "00112233-4455-6677-8899-aabbccddeeff"}, 0xf0000)
	if err != nil {
		t.Fatal(err)
	}
	var sum byte
	for _, v := range b[:entrySize] {
		sum += v
	}
	if string(b[:5]) != "_SM3_" || sum != 0 {
		t.Errorf("entry point = % x, sum %d", b[:entrySize], sum)
	}
	want := []byte{0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	var types []byte
	for s := b[32:]; len(s) > 0; {
		types = append(types, s[0])
		if s[0] == typeSys && !bytes.Equal(s[8:24], want) {
			t.Errorf("UUID = % x, want % x", s[8:24], want)
		}
		n := bytes.Index(s[s[1]:], []byte{0, 0})
		if n < 0 {
			t.Fatalf("structure %d has no end", s[0])
		}
		s = s[int(s[1])+n+2:]
	}
	if !bytes.Equal(types, []byte{typeBIOS, typeSys, typeEnd}) {
		t.Errorf("types = %v", types)
	}
}

func FuzzUUID(f *testing.F) {
	for _, s := range []string{"", "x", "00112233-4455-6677-8899-aabbccddeeff", "0011223344556677-8899-aabbccddeeff----"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := parseUUID(s); err != nil && u != [16]byte{} {
			t.Errorf("parseUUID(%q) = %x and an error", s, u)
		}
	})
}
