package main

import (
	"testing"

	"github.com/ashlar-hv/ashlar/initramfs/uevent"
)

// What happens to a device is told of PCI devices alone, and not of what is on them.
func TestDeviceNews(t *testing.T) {
	const path = "/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
	for text, want := range map[string]bool{
		"remove@" + path + "\x00SUBSYSTEM=pci\x00":                                    true,
		"remove@" + path + "/nvme/nvme0\x00SUBSYSTEM=nvme\x00":                        false,
		"unbind@" + path + "\x00SUBSYSTEM=pci\x00":                                    false,
		"change@" + path + "\x00SUBSYSTEM=pci\x00":                                    false,
		"change@" + path + "\x00SUBSYSTEM=pci\x00ERROR_EVENT=BEGIN_RECOVERY\x00":      true,
		"change@" + path + "\x00ERROR_EVENT=FAILED_RECOVERY\x00SUBSYSTEM=pci\x00":     true,
		"change@" + path + "\x00SUBSYSTEM=pci\x00ERROR_EVENT=SUCCESSFUL_RECOVERY\x00": false,
	} {
		e, err := uevent.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := deviceNews(e); (got != "") != want {
			t.Errorf("%q tells %q", text, got)
		}
	}
}
