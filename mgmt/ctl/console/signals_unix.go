//go:build unix

package console

import (
	"os"

	"golang.org/x/sys/unix"
)

// endSignals are those that would end the process with the terminal still raw.
var endSignals = []os.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT}
