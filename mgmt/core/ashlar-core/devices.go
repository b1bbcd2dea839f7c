package main

import (
	"context"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/uevent"
)

const (
	// pciPath is where in sysfs PCI devices are, and all that is on them.
	pciPath = "/devices/pci"
	// settle is how long core waits after an event for those that follow: a driver
	// that comes makes many.
	settle = 200 * time.Millisecond
)

// followDevices calls changed after PCI devices, or what is on them, have come, gone or got
// another driver, until ctx ends. happened is told at once of a device that has been taken out, or
// has met an error, in words.
func followDevices(ctx context.Context, log *slog.Logger, changed func(), happened func(address, words string)) {
	c, err := uevent.Listen()
	if err != nil {
		log.Error("changes of PCI devices are not noticed until core is started again", "error", err)
		return
	}
	wake := make(chan struct{}, 1)
	// It ends with the process: nothing wakes it from its reading.
	go func() {
		for {
			e, err := c.Read()
			if err != nil {
				log.Error("changes of PCI devices are not noticed until core is started again", "error", err)
				return
			}
			if words := deviceNews(e); words != "" {
				happened(path.Base(e.Path), words)
			}
			if e.Path == "" || strings.HasPrefix(e.Path, pciPath) {
				select {
				case wake <- struct{}{}:
				default: // it will look anyway
				}
			}
		}
	}()
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return
		}
		select { // what came meanwhile is looked at now
		case <-wake:
		default:
		}
		changed()
	}
}

// deviceNews is what an event says has happened to a PCI device that is no good, "" for nothing.
func deviceNews(e uevent.Event) string {
	switch {
	case e.Subsystem != "pci":
		return ""
	case e.Action == "remove":
		return "it was taken out of the host"
	case e.Error == "BEGIN_RECOVERY":
		return "it has reported an error (AER)"
	case e.Error == "FAILED_RECOVERY":
		return "it has reported an error (AER) that the host cannot recover it from"
	}
	return ""
}
