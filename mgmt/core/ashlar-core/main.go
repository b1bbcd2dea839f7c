// ashlar-core is the one program of an Ashlar host that touches its hardware:
// it keeps images and disks, makes guest networks, and starts a VMM for each
// guest.
//
// It is started by init as root, reads what init has found out about the host,
// and answers control over a Unix socket. On SIGTERM it presses the guests'
// power buttons, waits, ends what still runs, and exits. When it dies, its
// guests go on; started again, it adopts them.
package main

import (
	"fmt"
	"log/slog"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error(fmt.Sprintf("ashlar-core: %v", err))
		os.Exit(1)
	}
}
