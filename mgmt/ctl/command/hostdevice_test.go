package command

import "testing"

func TestParseHostDevice(t *testing.T) {
	d, err := ParseHostDevice("0000:17:00.0,rom=on,allow-no-reset=off")
	if err != nil || d.Device != "pciDevices/0000:17:00.0" || !d.Rom || d.AllowNoReset {
		t.Errorf("ParseHostDevice = %v, %v", d, err)
	}
	if d, err = ParseHostDevice("pciDevices/path-0000:00-1c.0-00.0"); err != nil || d.Device != "pciDevices/path-0000:00-1c.0-00.0" || d.Rom {
		t.Errorf("ParseHostDevice = %v, %v", d, err)
	}
	for _, s := range []string{"", "rom=on", "0000:17:00.0,rom=yes", "0000:17:00.0,size=1GiB", "0000:17:00.0,rom=on,rom=on"} {
		if d, err := ParseHostDevice(s); err == nil {
			t.Errorf("ParseHostDevice(%q) = %v", s, d)
		}
	}
}
