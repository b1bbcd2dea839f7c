package main

import (
	"slices"
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

func TestCard(t *testing.T) {
	var c card
	if err := c.setCard("eth1=0000:01:00.0"); err != nil || c != (card{"eth1", "0000:01:00.0"}) || c.String() != "eth1=0000:01:00.0" {
		t.Errorf("the card is %v, %v", c, err)
	}
	if err := c.setCard("eth1"); err == nil {
		t.Error("a card without an address is taken")
	}
}
