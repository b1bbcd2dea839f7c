// Command ashlar-vmm runs one guest.
//
// Synopsis:
//
//	ashlar-vmm
//	ashlar-vmm run --kernel FILE [--initramfs FILE] [--cmdline STRING]
//	               [--cpus N] [--cpu LIST] [--memory SIZE] [--disk FILE]... [--tap NAME]
//	               [--watchdog ACTION] [--on-panic ACTION] [--serial-number STRING] [--bare]
//	ashlar-vmm --help
//
// Description:
//
//	Without arguments it is a child of ashlar-core: descriptor 3 is a listening
//	socket, descriptor 4 the file for the result, and everything else comes
//	with the first message (see vmm/protocol). Before it looks at a byte that
//	a user has made, it gives up all privilege (see vmm/jail). It exits with
//	0 when the guest has ended, for whatever reason, and with 1 when it could
//	not be started.
//
//	run starts a guest from files, as the user who calls it, with the console
//	on the terminal: for development. Ctrl-] ends the guest, SIGTERM presses its
//	power button.
//
// Options of run:
//
//	--kernel FILE       bzImage
//	--initramfs FILE    cpio archive
//	--cmdline STRING    for the kernel (default "console=ttyS0")
//	--cpus N            1 to 128 (default 1)
//	--max-cpus N        that there may come to be (default: as many as --cpus)
//	--cpu LIST          model (host or x86-64-v1 to -v4), sockets=N, cores=N,
//	                    threads=N, hyperv, poll=DURATION, with commas between
//	--memory SIZE       such as 512MiB or 4GiB (default 256MiB); transparent (huge
//	                    pages, or no start) or 4KiB (no huge pages), and populate may
//	                    follow, with commas between
//	--disk FILE         raw image; FILE,ro for one that is only read
//	--tap NAME          network device on the tap interface NAME
//	--watchdog ACTION   have one: none, reset or power-off when it is not fed
//	--on-panic ACTION   none, reset or power-off when the kernel panics
//	--serial-number STRING  for SMBIOS
//	--bare              without devices for entropy, console and balloon
package main

import (
	_ "embed"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// heapGrowth is small: what the VMM itself needs counts for every guest, and
// there is little garbage.
const heapGrowth = 25

//go:embed main.go
var source string

// manual is the package comment above.
func manual() string {
	var b strings.Builder
	for line := range strings.Lines(source) {
		text, ok := strings.CutPrefix(line, "//")
		if !ok {
			break
		}
		b.WriteString(strings.TrimPrefix(text, " "))
	}
	return b.String()
}

func main() {
	debug.SetGCPercent(heapGrowth)
	lazyTimers()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 0:
		return serve()
	case args[0] == "run":
		return develop(args[1:])
	case args[0] == "--help" || args[0] == "-h" || args[0] == "help":
		fmt.Print(manual())
		return nil
	}
	return fmt.Errorf("unknown argument %q: see ashlar-vmm --help", args[0])
}
