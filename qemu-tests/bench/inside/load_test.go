package main

import (
	"slices"
	"strings"
	"testing"
)

// Figures are told apart by their names alone.
func TestLoadNames(t *testing.T) {
	seen := map[string]bool{"": true}
	for _, l := range slices.Concat(blockLoads(), networkLoads(serverAddress), cardLoads(serverAddress), diskLoads()) {
		names := []string{l.name}
		if l.perExit != "" {
			names = append(names, l.perExit)
		}
		for _, name := range names {
			if seen[name] {
				t.Errorf("%q is the name of two figures, or of none", name)
			}
			seen[name] = true
		}
	}
}

func TestIsGuest(t *testing.T) {
	const memfd = "7f1000000000-7f1008000000 rw-s 00000000 00:01 2 /memfd:ashlar-guest (deleted)"
	const heap = "7f2000000000-7f2008000000 rw-p 00000000 00:00 0"
	for _, c := range []struct {
		line  string
		memfd bool
		mib   int
		want  bool
	}{
		{memfd, true, 128, true}, {heap, true, 128, false}, {heap, false, 128, true}, {heap, false, 256, false},
		{strings.Replace(heap, "rw-p", "---p", 1), false, 128, false}, {heap + " /usr/bin/qemu", false, 128, false},
	} {
		if got := isGuest(strings.Fields(c.line), c.memfd, c.mib); got != c.want {
			t.Errorf("%q of a process with a memfd (%v) is a guest's of %d MiB: %v", c.line, c.memfd, c.mib, got)
		}
	}
}

func TestCard(t *testing.T) {
	var c card
	if err := c.setCard("eth1=0000:01:00.0"); err != nil || c != (card{"eth1", "0000:01:00.0"}) || c.String() != "eth1=0000:01:00.0" {
		t.Errorf("the card is %v, %v", c, err)
	}
	if err := c.setCard("eth1"); err == nil {
		t.Error("a card without an address is taken")
	}
}
