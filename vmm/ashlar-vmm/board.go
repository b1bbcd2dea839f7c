package main

import (
	"errors"
	"flag"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// boardFlags adds the flags for the devices on board.
func boardFlags(fs *flag.FlagSet, s *protocol.Spec) {
	b := &protocol.Board{}
	s.Board = b
	checked := func(set func(string)) func(string) error {
		return func(v string) error {
			set(v)
			if _, wrong := b.Check(); wrong != "" {
				return errors.New(wrong)
			}
			return nil
		}
	}
	fs.Func("watchdog", "have one: none, reset or power-off when it is not fed", checked(func(v string) { b.Watchdog = protocol.Action(v) }))
	fs.Func("on-panic", "none, reset or power-off when the kernel panics", checked(func(v string) { b.OnPanic = protocol.Action(v) }))
	fs.BoolVar(&b.Bare, "bare", false, "without devices for entropy, console and balloon")
	fs.Func("serial-number", "for SMBIOS", checked(func(v string) { b.SerialNumber = v }))
}
