package hostcall

import (
	"strconv"
	"strings"
)

// A DeviceKind is of what can be attached and detached.
type DeviceKind string

// Kinds of devices.
const (
	DiskKind DeviceKind = "disk"
	NICKind  DeviceKind = "nic"
	VFIOKind DeviceKind = "vfio" // a device of the host's
)

// MaxDisks, MaxNICs and MaxHostDevices bound what a guest has of each kind: numbers are
// below them.
const (
	MaxDisks       = 16
	MaxNICs        = 8
	MaxHostDevices = 16
)

// most is how many of a kind a guest can have.
var most = map[DeviceKind]int{DiskKind: MaxDisks, NICKind: MaxNICs, VFIOKind: MaxHostDevices}

// DeviceName names a device: `disk3`.
func DeviceName(kind DeviceKind, number int) string { return string(kind) + strconv.Itoa(number) }

// ParseDevice is the opposite of DeviceName; ok is false for what names no device.
func ParseDevice(name string) (kind DeviceKind, number int, ok bool) {
	for kind, n := range most {
		digits, is := strings.CutPrefix(name, string(kind))
		if number, err := strconv.Atoi(digits); is && err == nil && number >= 0 && number < n && DeviceName(kind, number) == name {
			return kind, number, true
		}
	}
	return "", 0, false
}

// Number gives devices their places for numbers where all of several have 0: they come
// from before there were numbers.
func Number[D any](devices []D, number func(*D) *int) {
	if len(devices) < 2 {
		return
	}
	for i := range devices {
		if *number(&devices[i]) != 0 {
			return
		}
	}
	for i := range devices {
		*number(&devices[i]) = i
	}
}
