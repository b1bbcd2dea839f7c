package transport_test

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

func TestWindow(t *testing.T) {
	r, d := plug(t)
	copy(d.config[:], "configuration..!")
	point := func(bar, off, n uint64) {
		r.SetConfig(r.Window+4, 1, bar)
		r.SetConfig(r.Window+8, 4, off)
		r.SetConfig(r.Window+12, 4, n)
	}
	point(0, 0x2004, 4)
	if v := r.Config(r.Window+16, 4); v != 0x72756769 { // "igur"
		t.Errorf("through the window: %#x", v)
	}
	point(0, 0x2001, 1)
	r.SetConfig(r.Window+16, 1, 'X')
	if d.config[1] != 'X' {
		t.Errorf("configuration after a write through the window: %q", d.config)
	}
	for _, bad := range [][3]uint64{{1, 0x2000, 4}, {0, 0x2000, 3}, {0, 0x2001, 4}, {0, 0x8000, 4}, {0, 1<<32 - 4, 4}, {0, 0x2000, 0}} {
		before := d.config
		point(bad[0], bad[1], bad[2])
		r.SetConfig(r.Window+16, 4, 0xdeadbeef)
		r.Config(r.Window+16, 4)
		if d.config != before {
			t.Errorf("window %#x wrote the configuration", bad)
		}
	}
}

// A page is where the guest reads a configuration space by itself.
type page [pci.ConfigSize]byte

func (p *page) Page() *[pci.ConfigSize]byte { return (*[pci.ConfigSize]byte)(p) }
func (p *page) Open() error                 { return nil }

// One that reads by itself finds in the window what was there when it wrote to it last.
func TestWindowAhead(t *testing.T) {
	r, d := plug(t)
	copy(d.config[:], "configuration..!")
	var shown page
	r.M.Must(r.M.Bus.Show(func(off uint64) (pci.View, error) {
		if off != 0 {
			return &shown, nil
		}
		return new(page), nil
	}))
	data := func() string { return string(shown[r.Window+16:][:4]) }
	r.SetConfig(r.Window+4, 1, 0)
	r.SetConfig(r.Window+8, 4, 0x2004)
	if got := data(); got != "\x00\x00\x00\x00" {
		t.Errorf("a window of no length shows %q", got)
	}
	r.SetConfig(r.Window+12, 4, 4)
	if got := data(); got != "igur" {
		t.Errorf("the window shows %q", got)
	}
	r.SetConfig(r.Window+16, 4, 0x44434241)
	if got := data(); got != "ABCD" || string(d.config[4:8]) != "ABCD" {
		t.Errorf("after a write the window shows %q, the device has %q", got, d.config[4:8])
	}
	copy(d.config[4:], "abcd")
	r.SetConfig(r.Window+8, 4, 0x2004)
	if got := data(); got != "abcd" {
		t.Errorf("after another one it shows %q", got)
	}
}
