// ashlar-netd answers the guests of an Ashlar host that ask for their network
// address (DHCP).
//
// It is started by ashlar-core, as root in namespaces of its own, with
// descriptor 3 a connection to core; over that it receives a socket for each
// guest network. Before it reads a packet it enters an empty room as an
// unprivileged user. It ends when core ends the connection.
package main

import (
	"fmt"
	"log/slog"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error(fmt.Sprintf("ashlar-netd: %v", err))
		os.Exit(1)
	}
}
