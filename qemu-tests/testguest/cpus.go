package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// online brings every CPU online that has come, and says which are.
func online() (string, error) {
	switches, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/online")
	if err != nil {
		return "", err
	}
	for _, f := range switches {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == "0" {
			err = os.WriteFile(f, []byte("1"), 0)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) { // these are gone, or on their way
			return "", err
		}
	}
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	return strings.TrimSpace(string(b)), err
}

// spin keeps a thread busy for ever.
func spin() {
	go func() {
		runtime.LockOSThread()
		for n := 0; ; n++ {
			_ = n
		}
	}()
}
