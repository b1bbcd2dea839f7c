package machine

import (
	"bytes"
	"testing"
)

func TestParseMAC(t *testing.T) {
	if mac, err := parseMAC("52:54:00:aB:Cd:ef"); err != nil || !bytes.Equal(mac, []byte{0x52, 0x54, 0, 0xab, 0xcd, 0xef}) {
		t.Errorf("%x, %v", mac, err)
	}
	for _, s := range []string{"", "x", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:00", "52:54:0:ab:cd:ef", "52:54:00:ab:cd:eg", "52:54:00:ab:cd:+1", "52-54-00-ab-cd-ef"} {
		if mac, err := parseMAC(s); err == nil || mac != nil {
			t.Errorf("parseMAC(%q) = %x, %v", s, mac, err)
		}
	}
}
