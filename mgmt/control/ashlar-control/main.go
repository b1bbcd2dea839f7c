// Ashlar-control is the control domain of an Ashlar host: it serves the management API
// and brings guests to the state that was asked for. It holds no privilege: everything
// that touches the host it asks of core.
//
// # Start
//
// init starts it in its room (initramfs/layout): descriptor 3 is the listening socket,
// descriptor 4 the settings (layout.ControlSettings as JSON); its store is
// /state/control.db, core answers at /core/core.sock. It logs to descriptor 2.
//
// # Flags
//
// For running it elsewhere, unconfined:
//
//	-listen ADDRESS   listen there instead of using descriptor 3
//	-settings FILE    read the settings there instead of from descriptor 4
//	-state DIR        keep the store there (default /state)
//	-core DIR         find core.sock there (default /core)
//
// # Exit status
//
// 0 after SIGTERM or SIGINT. 1 where it cannot work: the log says why. Without a client
// CA it stays, and lets nobody in.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}
