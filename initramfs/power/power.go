// Package power hears the power button and turns the machine off: input events
// (Documentation/input/input.rst, include/uapi/linux/input.h) and reboot(2).
package power

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
)

// eventSize is the size of struct input_event on 64-bit machines: two 64-bit
// times, then type and code (16 bits each) and value (32 bits).
const eventSize = 24

const (
	offsetType  = 16
	offsetCode  = 18
	offsetValue = 20
)

// pressed reports whether the event b is the power button going down.
func pressed(b []byte) bool {
	if len(b) < eventSize {
		return false
	}
	return binary.NativeEndian.Uint16(b[offsetType:]) == evKey &&
		binary.NativeEndian.Uint16(b[offsetCode:]) == keyPower &&
		binary.NativeEndian.Uint32(b[offsetValue:]) == 1
}

// hasKey reports whether a capabilities/key file of sysfs names the key: 64-bit
// words in hexadecimal, the highest first.
func hasKey(capabilities string, key int) bool {
	words := strings.Fields(capabilities)
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	word, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && word&(1<<(key%64)) != 0
}

// Buttons lists the input devices that have a power button: names as
// "event0". sysfs is "/sys".
func Buttons(sysfs string) []string {
	files, _ := filepath.Glob(filepath.Join(sysfs, "class/input/event*/device/capabilities/key"))
	var names []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && hasKey(string(b), keyPower) {
			names = append(names, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(file)))))
		}
	}
	return names
}

// Watch reads r, an open input device, and calls press for each press of the
// power button. It returns when the device is gone.
func Watch(r io.Reader, press func()) error {
	b := make([]byte, 64*eventSize)
	for {
		n, err := io.ReadAtLeast(r, b, eventSize)
		if err != nil {
			return fmt.Errorf("read input device: %w", err)
		}
		for ; n >= eventSize; n -= eventSize {
			if pressed(b[:eventSize]) {
				press()
			}
			copy(b, b[eventSize:])
		}
	}
}

// Off turns the machine off, Restart starts it anew. Both return only on
// failure.
func Off() error     { return reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }
func Restart() error { return reboot(unix.LINUX_REBOOT_CMD_RESTART) }

func reboot(command int) error {
	return fmt.Errorf("reboot(2): %w", unix.Reboot(command))
}

// CatchCtrlAltDel makes the kernel send SIGINT to init on Ctrl-Alt-Del; else it
// would reboot without asking.
func CatchCtrlAltDel() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return fmt.Errorf("catch Ctrl-Alt-Del: %w", err)
	}
	return nil
}
