// Ashlarctl manages Ashlar hosts from the operator's machine.
//
// Synopsis:
//
//	ashlarctl COMMAND [ARG...] [--context NAME] [--address HOST:PORT] [-o table|json|yaml]
//
// Commands:
//
//	config     make certificates and the configuration document of a host
//	image      put that document into a host's image; upload images of guests
//	context    say which host is meant, and as whom
//	host       look at the host
//	vm         create, start, watch, stop and delete virtual machines
//	operation  look at work under way
//	watch      show changes as they happen
//	completion make completion scripts for shells
//
// `ashlarctl COMMAND --help` has examples; `ashlarctl --help` lists the exit
// codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/command"
)

// version is set by the linker (-X main.version=…).
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, os.Args[1:], command.IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: programVersion(),
	})
	stop()
	os.Exit(code)
}

// programVersion is what the linker set, else what the build recorded.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
