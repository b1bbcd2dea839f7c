package smbios

import (
	"bytes"
	"testing"
)

func TestSerialNumber(t *testing.T) {
	for _, serial := range []string{"", "7", "RACK 12/4"} {
		s := system([16]byte{}, serial)
		strs := bytes.Split(bytes.TrimRight(s[s[1]:], "\x00"), []byte{0})
		got := ""
		if n := int(s[7]); n > 0 && n <= len(strs) {
			got = string(strs[n-1])
		}
		if got != serial || string(strs[s[4]-1]) != "Ashlar" || string(strs[s[5]-1]) != "Ashlar Virtual Machine" {
			t.Errorf("serial number = %q, want %q; strings %q", got, serial, strs)
		}
	}
}
