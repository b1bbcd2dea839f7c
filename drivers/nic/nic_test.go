package nic

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestChoose(t *testing.T) {
	mac := func(s string) net.HardwareAddr {
		m, err := net.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	list := []Interface{
		{Name: "eth0", MAC: mac("52:54:00:00:00:01")},
		{Name: "eth1", MAC: mac("52:54:00:00:00:02"), Carrier: true},
		{Name: "eth2", MAC: mac("52:54:00:00:00:03"), Carrier: true},
	}
	for want, name := range map[string]string{
		"auto": "eth1", "eth0": "eth0", "52:54:00:00:00:03": "eth2", "52-54-00-00-00-01": "eth0",
		"eth9": "", "52:54:00:00:00:09": "", "": "",
	} {
		i, ok := Choose(list, want)
		if i.Name != name || ok != (name != "") {
			t.Errorf("Choose %q = %q, %v, want %q", want, i.Name, ok, name)
		}
	}
	if _, ok := Choose(list[:1], "auto"); ok {
		t.Error("Choose takes an interface without a carrier")
	}
}

func TestPhysical(t *testing.T) {
	sysfs := t.TempDir()
	for _, file := range []string{"eth0/device/vendor", "vf0/device/physfn/vendor", "wwan0/device/vendor", "br0/bridge/x"} {
		path := filepath.Join(sysfs, "class/net", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]string{"eth0": "1\n", "vf0": "1\n", "wwan0": "519\n", "br0": "1\n"} {
		if err := os.WriteFile(filepath.Join(sysfs, "class/net", name, "type"), []byte(kind), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"eth0": true, "vf0": false, "wwan0": false, "br0": false, "none": false} {
		if got := physical(sysfs, name); got != want {
			t.Errorf("physical %s = %v, want %v", name, got, want)
		}
	}
}
