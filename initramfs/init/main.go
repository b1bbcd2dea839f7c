// Init is PID 1 of an Ashlar host.
//
// It brings the machine up in a short list of steps (boot.go), starts core and
// control, starts them again when they end, reaps orphans, and on the power
// button stops guests, syncs and powers off. It does not end.
//
// A step that fails is told on the console and in HostInfo.Problems; the next
// one begins all the same.
//
// The same program, started by init under the name helperName, does what is
// better not done as PID 1:
//
//	room-control             enter control's room and become control
//	dhcp-client IFACE HOST   ask for an address, without privileges
//	ntp-client SERVER...     ask for the time, without privileges
//	probe-api ADDRESS        wait until the API answers, without privileges
//
// Words on the kernel's command line:
//
//	ashlar.rescue=ttyS1      a root shell of u-root commands on that terminal
//	ashlar.config=none       do not wait for a configuration partition
package main

import (
	"fmt"
	"os"
)

const (
	// ownPath is where this program lies.
	ownPath = "/init"
	// helperName is argv[0] of init's helpers. The kernel starts init by its path.
	helperName = "ashlar-helper"
)

// version is set by the builder.
var version = "devel"

func main() {
	if len(os.Args) > 1 && os.Args[0] == helperName {
		if err := helper(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: only the kernel starts this program, as PID 1")
		os.Exit(2)
	}
	newMachine().run()
}

func helper(name string, args []string) error {
	switch {
	case name == "room-control":
		return controlRoom.Enter()
	case name == "dhcp-client" && len(args) == 2:
		return dhcpClient(args[0], args[1])
	case name == "ntp-client":
		return ntpClient(args)
	case name == "probe-api" && len(args) == 1:
		return probeAPI(args[0])
	}
	return fmt.Errorf("no such helper, or wrong arguments: %q", args)
}
